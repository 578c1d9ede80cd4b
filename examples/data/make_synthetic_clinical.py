"""Write the synthetic clinical corpus next to this script.

    python examples/data/make_synthetic_clinical.py

It expands a grammar at random, from a fixed seed: ``<name>`` stands for one of the alternatives
under that name. Entities have capital letters, see `ENTITIES`; ``<p>``, ``<t>``, ``<x>`` and
``<d>`` are the same words where, by the guideline in the README, they are not entities.
"""

import random
from pathlib import Path

SIZES = {"train": 600, "devel": 150, "test": 150}
ENTITIES = {
    "P": "Problem",
    "S": "Problem",  # with its severity, which is part of the span
    "C": "Problem",  # after its course, which is not part of it
    "T": "Treatment",  # a procedure, or a drug with or without dose and route
    "R": "Treatment",  # a procedure
    "D": "Treatment",  # a drug alone
    "X": "Test",
}
HELD_OUT = 0.3
"""Share of the entity words in devel and test that are drawn from words held out of train."""

WORDS = {
    "P": """pneumonia; chest pain; asthma; migraine; heart failure; atrial fibrillation;
        cellulitis; hypertension; type 2 diabetes; anaemia; appendicitis; gout; ankle swelling;
        acute kidney injury; osteoarthritis of the left knee; depression; delirium; deep vein
        thrombosis; sepsis; COPD; MI; UTI; SOB; GORD; nausea; vomiting; dizziness; a dry cough;
        night sweats; fever; low back pain; abdominal pain; weight loss; psoriasis;
        hypothyroidism; epilepsy; a fall; palpitations; hyponatraemia; urinary retention;
        constipation; a pressure ulcer; pleural effusion; pancreatitis; gallstones; a torn
        meniscus; tinnitus; glaucoma; cirrhosis; eczema; peripheral neuropathy; a common cold;
        purulent discharge; wound infection; haematuria; MS; PE; aortic stenosis; a distal radius
        fracture; insomnia; jaundice; syncope; sinusitis; ulcerative colitis; rash on both arms;
        hearing loss; vertigo; bronchiectasis; cataract; allergy to penicillin; a latex allergy;
        iron deficiency; a stroke; TIA; blurred vision""",
    "drug": """aspirin; metformin; amlodipine; ramipril; furosemide; amoxicillin; warfarin;
        apixaban; atorvastatin; omeprazole; prednisolone; paracetamol; ibuprofen; codeine;
        bisoprolol; levothyroxine; sertraline; gabapentin; lactulose; doxycycline; enoxaparin;
        tamsulosin; colchicine; allopurinol; spironolactone; digoxin; methotrexate; salbutamol;
        iron; potassium; folic acid; clopidogrel; naproxen; cetirizine; lorazepam; haloperidol;
        MS; vancomycin""",
    "T": """appendicectomy; physiotherapy; PT; CABG; a hip replacement; dialysis; home oxygen; IV
        fluids; a blood transfusion; radiotherapy; chemotherapy; compression stockings; CPAP; a
        cold compress; wound dressing; cognitive behavioural therapy; cataract surgery; a
        pacemaker; splinting; bed rest; 10 % glucose; a nicotine patch; inhaled steroids; a low
        salt diet; laparoscopic cholecystectomy; plasma exchange; a urinary catheter; nerve
        block""",
    "X": """CT of the head; chest X-ray; ECG; troponin; blood pressure; haemoglobin; creatinine;
        D-dimer; urine culture; blood cultures; MRI of the spine; echocardiogram; CRP; glucose;
        potassium; iron; INR; PT; PE; TSH; colonoscopy; spirometry; an ultrasound of the abdomen;
        oxygen saturation; white cell count; lactate; a lumbar puncture; HbA1c; ferritin; sodium;
        a bone scan; endoscopy; liver function tests; a stress test; audiometry; a skin biopsy;
        peak flow; BNP; an arterial blood gas; EEG; coronary angiography; a Doppler scan""",
}

GRAMMAR = {
    "sentence": """<body> .; <body> .; <body> .; <body> .; <when> , <body> .; <heading> : <list>
        .; <body> , <link> <body> .; <plain> .; <plain> .; <beside> .; <beside> .""",
    "when": """On admission; This morning; Overnight; Two days later; On <ward>; At review; In
        <year>; Since discharge; During the night; After breakfast; By day <small>""",
    "ward": "the ward; the stroke unit; the diabetes clinic; the pain team round; ward <small>",
    "year": "2009; 2014; 2017; 2019; last spring; the summer",
    "link": "and; but; so; while; after which",
    "who": """he; she; the patient; Mrs Alder; Mr Finch; this <age> year old man; this <age> year
        old woman; the lady in bed <small>; our patient""",
    "age": "34; 47; 58; 63; 71; 79; 86",
    "small": "2; 3; 4; 5; 6; 7",
    "body": """<who> <has> <PS>; <who> <has> <PS>; <who> denies <PS>; no <PN> or <PN>; no sign of
        <PS>; <who> was started on <TS>; <who> was given <TS> for <PS>; <TS> was stopped because
        of <PS>; <XS> <was> <finding>; <XS> showed <PS>; <XS> to rule out <PS>; <XS> confirmed
        <PS>; <who> underwent <R>; <who> is awaiting <XT>; <who> refused <XT>; known <P> , on
        <TS>; <P> settled with <TS>; <P> on background of <PS>; history of <PS>; plan <XT> ;
        repeat <X> in <small> days; <X> <value>; <X> <value> , <X> <value>; continue <TS>;
        increase <D> to <dose>; <who> presented with <course> <C>; <course> <C> despite <TS>; <P>
        was treated with <TS>; there was <P> , <P> and <P>; <P> improved after <R>; <who> could
        not tolerate <T>; <P> secondary to <P>; <S> after <T>; given <TS> ; <X> was done in view
        of <PS>; <P> is unlikely given <X> of <number>; worried about <PS>; <X> pending; <who>
        takes <TS>; <T> was well tolerated; <XT> may be needed""",
    "has": """has; had; reports; developed; complains of; was admitted with; suffers from; is
        known for""",
    "PS": "<P>; <P>; <P>; <P> and <P>; <P> , <P> and <P>; <S>; <P> with <P>; <P> or <P>",
    "PN": "<P>; <P>; <S>",
    "TS": "<T>; <T>; <T>; <T>; <T> and <T>; <T> plus <T>; <T> , then <T>",
    "XS": "<X>; <X>; <X>; <X> and <X>; urgent <X>; repeat <X>; an outpatient <X>",
    "XT": "<X>; <X>; <T>; <X> before <R>; <X> and <T>",
    "was": "was; is; came back; remained; is now",
    "finding": "normal; unremarkable; raised; low; negative; positive; <number>; stable; equivocal",
    "value": "<number>; of <number>; was <number>; normal; <number> <unit>; down to <number>",
    "number": "0.4; 1.2; 3.1; 5.6; 7.4; 12; 38; 64; 98; 110; 132; 145",
    "unit": "mmol/L; g/L; mg/L; %; U/L",
    "course": "worsening; new; intermittent; recurrent; ongoing; resolving",
    "heading": "Impression; Problems; Past history; Current treatment; Investigations; Plan",
    "list": "<P>; <P> , <P>; <T> , <T>; <X> , <X>; <P> , <T>; <X> and review; <T> , <X>; <P> ?",
    "dose": "5 mg; 10 mg daily; 20 mg; 40 mg once daily; 75 mg; 1 g; 500 mg three times a day",
    "route": "IV; orally; at night; daily; BD; TDS; PRN; in the morning; for <small> days",
    # By the guideline, none of the following contains an entity.
    "beside": """<kin> had <p>; <kin> died of <p> at <age>; family history of <p> and <p>; <kin>
        takes <d> for <p>; <who> was given a leaflet on <p>; <who> works in the <x> department;
        referred to the <p> clinic; discussed with the <p> team; <who> was seen by the <p> nurse;
        enrolled in a trial on <p>; <kin> is having <t> next week; the <x> machine was out of
        order; <who> read about <t> on the internet; <who> volunteers for a <p> charity""",
    "kin": "his father; her mother; a brother; her sister; his son; the neighbour; an aunt",
    "plain": """<who> was discharged home; <who> lives alone in a cold flat; review in <small>
        weeks; <who> is under pressure at work; discharge planned for <when2>; <who> feels better;
        <who> stopped smoking in <year>; the iron gate hit nobody; <who> wears glasses for
        reading; discussed with the family , who agree; <who> has <small> children; seen with the
        interpreter; <who> walks with a stick; the safety culture on the ward was praised; <who>
        slept well; <who> is a retired teacher from a small town; <who> drinks <small> units a
        week; transfer to another hospital was considered; <who> asked good questions; no concerns
        today; a positive attitude was noted; <who> had a normal breakfast; the test results were
        explained; the treatment plan was agreed; <who> has no problem with stairs""",
    "when2": "Monday; tomorrow; the weekend; day <small>",
}


def _alternatives(text):
    return [" ".join(item.split()) for item in text.split(";")]


def _partition(rng):
    """Return the words of each kind by part; devel and test have words of their own."""
    parts = {}
    for kind, text in WORDS.items():
        words = _alternatives(text)
        rng.shuffle(words)
        nb_held_out = len(words) // 6
        parts[kind] = {
            "train": words[2 * nb_held_out :],
            "devel": words[:nb_held_out],
            "test": words[nb_held_out : 2 * nb_held_out],
        }
    return parts


class _Writer:
    """Expands the grammar into (token, tag) pairs for one part of the corpus."""

    def __init__(self, rng, words, part):
        self.rng, self.words, self.part = rng, words, part
        self.grammar = {name: _alternatives(text) for name, text in GRAMMAR.items()}

    def word(self, kind):
        part = self.part if self.rng.random() < HELD_OUT else "train"
        return self.rng.choice(self.words[kind][part])

    def entity(self, symbol):
        if symbol == "S":
            return f"{self.rng.choice(['mild', 'severe', 'marked', 'acute'])} {self.bare('P')}"
        if symbol == "C":
            return self.bare("P")
        if symbol == "D" or (symbol == "T" and self.rng.random() < 0.65):
            return self.word("drug") + (self.dosage() if symbol == "T" else "")
        return self.word({"R": "T"}.get(symbol, symbol))

    def dosage(self):
        shape = self.rng.random()
        if shape < 0.35:
            return ""
        dose = f" {self.plain('dose')}"
        return dose if shape < 0.7 else f"{dose} {self.plain('route')}"

    def bare(self, kind):
        word = self.word(kind)
        return word.removeprefix("a ").removeprefix("an ")

    def plain(self, symbol):
        return " ".join(token for token, _ in self.expand(f"<{symbol}>"))

    def expand(self, text):
        pairs = []
        for item in text.split():
            if not item.startswith("<"):
                pairs.append((item, "O"))
                continue
            symbol = item.strip("<>")
            if symbol in self.grammar:
                pairs += self.expand(self.rng.choice(self.grammar[symbol]))
            elif symbol in ("p", "t", "x", "d"):
                kind = "drug" if symbol == "d" else symbol.upper()
                pairs += [(token, "O") for token in self.bare(kind).split()]
            else:
                pairs += self.tagged(symbol)
        return pairs

    def tagged(self, symbol):
        tokens = self.entity(symbol).split()
        # The article that some words begin with is not part of the span.
        article = tokens[:1] if tokens[0] in ("a", "an") else []
        tokens = tokens[len(article) :]
        label = ENTITIES[symbol]
        tags = [f"B-{label}"] + [f"I-{label}"] * (len(tokens) - 1)
        return [(token, "O") for token in article] + list(zip(tokens, tags, strict=True))

    def sentence(self):
        pairs = self.expand("<sentence>")
        token, tag = pairs[0]
        return [(token[:1].upper() + token[1:], tag), *pairs[1:]]


def corpus():
    """Return the content of each file; no sentence occurs twice, in one file or in two."""
    rng = random.Random(2024)
    words = _partition(rng)
    seen, content = set(), {}
    for part, size in SIZES.items():
        writer, sentences = _Writer(rng, words, part), []
        while len(sentences) < size:
            pairs = tuple(writer.sentence())
            if pairs not in seen:
                seen.add(pairs)
                sentences.append("".join(f"{token}\t{tag}\n" for token, tag in pairs))
        content[f"{part}.tsv"] = "\n".join(sentences)
    return content


def main():
    """Write the corpus."""
    folder = Path(__file__).parent / "synthetic_clinical"
    for name, text in corpus().items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
