"""Write the synthetic notes with related entities next to this script.

    python examples/data/make_synthetic_relations.py

A note is a few sentences about drugs, doses and signs, from a fixed seed. In a template ``D1``
stands for a drug, ``S1`` for a sign, ``Q1`` for a dose, ``{her}`` and the like for words that are
no entities, and ``~`` for sentences without entities; the relations follow after the bar.
"""

import random
import re
from pathlib import Path

SIZES = {"train": 90, "devel": 20, "test": 40}
HELD_OUT = 0.5
"""Share of the words and templates in devel and test that are drawn from those that train lacks."""
LABELS = {"D": "Drug", "S": "Sign", "Q": "Dose"}

WORDS = {
    "D": """amlodipine; metformin; ramipril; furosemide; amoxicillin; warfarin; atorvastatin;
        omeprazole; prednisolone; paracetamol; ibuprofen; codeine; bisoprolol; sertraline;
        gabapentin; doxycycline; colchicine; allopurinol; spironolactone; digoxin; methotrexate;
        salbutamol; naproxen; cetirizine; lorazepam; haloperidol; tramadol; mirtazapine; lithium;
        propranolol; pregabalin; baclofen; nifedipine; citalopram; topiramate; verapamil""",
    "S": """headache; nausea; ankle swelling; dizziness; itching; dry cough; palpitations;
        constipation; diarrhoea; insomnia; fatigue; back pain; knee pain; muscle cramps; tremor;
        heartburn; blurred vision; night sweats; vomiting; wheeze; breathlessness; low mood; dry
        mouth; loss of appetite; hives; abdominal pain; flushing; drowsiness; confusion; joint
        stiffness; urinary frequency; tingling of the feet; hiccups; restlessness""",
    "Q": """5 mg; 10 mg daily; 20 mg; 40 mg once daily; 75 mg; 1 g; 500 mg three times a day; 2.5 mg
        at night; 100 mg twice a day; 250 mg; 15 mg in the morning; 2 mg; 30 mg; 600 mg""",
}
SMALL = {
    "few": "two; three; four; ten",
    "when": "in March; last week; on Monday; at the last visit; by the GP",
    "plain": """Blood pressure was normal; {she} lives with a sister on the first floor; The chest
        was clear; Bloods were taken today; {she} walks without a stick; Weight is stable; There was
        no change to the care plan; We talked about diet and exercise; The scan is booked for next
        month; {she} does not smoke""",
}

SEEN = """
D1 Q1 relieved {her} S1 | Relieves D1 S1, DoseOf Q1 D1
{her} S1 settled with D1 | Relieves D1 S1
{her} S1 is much better since D1 was started | Relieves D1 S1
There is no S1 any more on D1 Q1 | Relieves D1 S1, DoseOf Q1 D1
D1 helped with S1 but not with S2 | Relieves D1 S1
D1 took the S1 away within {few} days | Relieves D1 S1
D1 was stopped because of S1 | Causes D1 S1
D1 Q1 brought on S1 | Causes D1 S1, DoseOf Q1 D1
{she} developed S1 {few} days after D1 was started | Causes D1 S1
The S1 went once D1 was stopped | Causes D1 S1
{she} has S1, most likely due to D1 | Causes D1 S1
D1 relieved {her} S1 but caused S2 | Relieves D1 S1, Causes D1 S2
S1 from D1 settled with D2 Q1 | Causes D1 S1, Relieves D2 S1, DoseOf Q1 D2
D1 was swapped for D2 Q1 because of S1 | Causes D1 S1, DoseOf Q1 D2
D1 was continued despite S1 |
{her} S1 was no better with D1 Q1 | DoseOf Q1 D1
There was no change in {her} S1 on D1 |
The S1 was there before D1 was started |
D1 Q1 was started, and the S1 will be reviewed | DoseOf Q1 D1
{she} denies S1 on D1 Q1 | DoseOf Q1 D1
D1 did not cause any S1 |
The S1 is an old problem and not due to D1 |
{she} takes D1 Q1 and D2 Q2 | DoseOf Q1 D1, DoseOf Q2 D2
{she} takes D1 and D2 Q1 | DoseOf Q1 D2
D1 was increased from Q1 to Q2 | DoseOf Q1 D1, DoseOf Q2 D1
Regular drugs: D1, D2 Q1, D3 | DoseOf Q1 D2
D1 Q1 was started {when}. ~ The new drug was blamed for S1 | Causes D1 S1, DoseOf Q1 D1
D1 was started {when}. ~ The new drug had taken {her} S1 away | Relieves D1 S1
D1 Q1 was started {when}. ~ {she} mentioned S1 in passing | DoseOf Q1 D1
"""
UNSEEN = """
D1 Q1 eased {her} S1 | Relieves D1 S1, DoseOf Q1 D1
Thanks to D1 {she} is free of S1 | Relieves D1 S1
{her} S1 responded to D1, unlike S2 | Relieves D1 S1
The S1 improved after the first tablet of D1 | Relieves D1 S1
Q1 of D1 was enough to calm {her} S1 | Relieves D1 S1, DoseOf Q1 D1
D1 had to be given up, as it gave {her} S1 | Causes D1 S1
S1 followed the first tablet of D1 | Causes D1 S1
The S1 came back when D1 was tried again | Causes D1 S1
D1 was halved to Q1 after S1 | Causes D1 S1, DoseOf Q1 D1
D1 made the S1 go away but left {him} with S2 | Relieves D1 S1, Causes D1 S2
D1 Q1 did nothing for {her} S1 | DoseOf Q1 D1
The S1 went on unchanged under D1 |
The S1 began long before D1 Q1 | DoseOf Q1 D1
Whether D1 helps against S1 remains to be seen |
{she} tolerates D1 without S1 |
D1 is given at Q1, D2 as before | DoseOf Q1 D1
D1 was replaced by Q1 of D2 | DoseOf Q1 D2
D1 was begun {when}. ~ Since then {she} has had S1 | Causes D1 S1
D1 was begun {when}. ~ By now the S1 has gone | Relieves D1 S1
"""


def _alternatives(text):
    return [" ".join(item.split()) for item in text.split(";")]


def _templates(text):
    """Return pairs of a text and its relations, each a label and two names of entities."""
    pairs = [line.split("|") for line in text.strip().splitlines()]
    return [
        (words.strip(), [relation.split() for relation in relations.split(",") if relation.strip()])
        for words, relations in pairs
    ]


class _Writer:
    """Puts the notes of one part of the corpus together."""

    def __init__(self, rng, part):
        self.rng, self.is_train = rng, part == "train"
        self.small = {name: _alternatives(text) for name, text in SMALL.items()}
        self.known, self.held_out = {}, {}
        for kind, text in WORDS.items():
            words = _alternatives(text)
            nb_held_out = 0 if kind == "Q" else len(words) // 3
            self.held_out[kind], self.known[kind] = words[:nb_held_out], words[nb_held_out:]

    def seen(self):
        """Return whether the next word or template is one of those that train has."""
        return self.is_train or self.rng.random() >= HELD_OUT

    def word(self, kind, used):
        """Return a word that the note does not have yet."""
        words = self.known[kind] if self.seen() else self.held_out[kind] or self.known[kind]
        word = self.rng.choice([word for word in words if word not in used])
        used.add(word)
        return word

    def filled(self, text):
        """Return a text with all but its entities filled in."""
        if "~" in text:
            sentences = self.rng.sample(self.small["plain"], self.rng.randint(1, 5))
            text = text.replace("~", " ".join(f"{sentence}." for sentence in sentences))
        words = {name: self.rng.choice(values) for name, values in self.small.items()}
        return text.format(**words, she=self.she, her=self.her, him=self.him)

    def note(self):
        """Return text, entities and relations of a note."""
        persons = [("she", "her", "her"), ("he", "his", "him")]
        self.she, self.her, self.him = self.rng.choice(persons)
        text, entities, relations, used = "", [], [], set()
        for _ in range(self.rng.randint(3, 6)):
            words, links = self.rng.choice(_templates(SEEN if self.seen() else UNSEEN))
            if text:
                text += self.rng.choice([" ", " ", "\n"])
            names, begin = {}, len(text)
            for piece in re.split(r"\b([DSQ]\d)\b", self.filled(words)):
                if re.fullmatch(r"[DSQ]\d", piece):
                    names[piece] = len(entities)
                    word = self.word(piece[0], used)
                    entities.append((LABELS[piece[0]], len(text), len(text) + len(word)))
                    piece = word
                text += piece
            relations += [(label, names[head], names[tail]) for label, head, tail in links]
            text = text[:begin] + _with_capitals(text[begin:]) + "."
        return text + "\n", entities, relations


def _with_capitals(text):
    return re.sub(r"(^|\. )([a-z])", lambda match: match[1] + match[2].upper(), text)


def _annotations(text, entities, relations):
    """Return the lines of an .ann file."""
    lines = [
        f"T{number}\t{label} {start} {end}\t{text[start:end]}\n"
        for number, (label, start, end) in enumerate(entities, start=1)
    ]
    for number, (label, head, tail) in enumerate(relations, start=1):
        lines.append(f"R{number}\t{label} Arg1:T{head + 1} Arg2:T{tail + 1}\n")
    return "".join(lines)


def corpus():
    """Return the content of each file, by its path."""
    rng, content = random.Random(2025), {}
    for part, size in SIZES.items():
        writer = _Writer(rng, part)
        for number in range(1, size + 1):
            text, entities, relations = writer.note()
            content[f"{part}/note_{number:03}.txt"] = text
            content[f"{part}/note_{number:03}.ann"] = _annotations(text, entities, relations)
    return content


def main():
    """Write the corpus."""
    folder = Path(__file__).parent / "synthetic_relations"
    for name, text in corpus().items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
