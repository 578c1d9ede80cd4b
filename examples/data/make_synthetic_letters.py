"""Write the synthetic clinic letters next to this script.

    python examples/data/make_synthetic_letters.py

Each letter is about one specialty, in the column ``specialty``, and mentions others as past history
or as a matter for somebody else; ``topics`` names all that the patient has now. From a fixed seed.
"""

import csv
import io
import random
from pathlib import Path

SIZES = {"train": 400, "devel": 100, "test": 150}
HELD_OUT = 0.7
"""Share of the phrases in devel and test that are drawn from those that train lacks."""
COLUMNS = ("patient", "specialty", "topics", "text")

SPECIALTIES = {
    "cardiology": {
        "complaint": """tightness in the chest on the stairs; palpitations at night; swollen
            ankles; breathlessness when lying flat; a fainting spell; an irregular pulse""",
        "finding": """atrial fibrillation on the ECG; a systolic murmur; an ejection fraction of
            40 %; a blocked coronary artery; a raised BNP; blood pressure of 172 over 96""",
        "plan": """start bisoprolol; arrange an echocardiogram; book an angiogram; increase
            ramipril; begin apixaban; fit a 24 hour monitor""",
    },
    "gastroenterology": {
        "complaint": """heartburn after meals; loose stools for a month; pain under the ribs on
            the right; difficulty in swallowing; blood on the paper; weight loss and bloating""",
        "finding": """gallstones on the ultrasound; a small ulcer at gastroscopy; a raised
            calprotectin; villous atrophy; polyps in the sigmoid colon; abnormal liver tests""",
        "plan": """book a colonoscopy; start omeprazole; refer for removal of the gallbladder;
            test for coeliac disease; take mesalazine; repeat the liver tests""",
    },
    "neurology": {
        "complaint": """headaches with flashing lights; numbness of the left hand; a tremor at
            rest; two seizures; double vision; weakness of one leg""",
        "finding": """white matter lesions on MRI; slow speech; absent ankle reflexes; a pill
            rolling tremor; spikes on the EEG; an old infarct on CT""",
        "plan": """start levetiracetam; arrange nerve conduction studies; try a triptan; book an
            MRI of the brain; begin levodopa; refer to the headache nurse""",
    },
    "respiratory": {
        "complaint": """a dry cough since winter; wheeze in cold air; green sputum; loud
            snoring; breathlessness on the flat; coughing up blood""",
        "finding": """an FEV1 of 55 %; crackles at both bases; a shadow in the left upper lobe;
            oxygen saturation of 89 %; thickened airways on CT; a pleural effusion""",
        "plan": """try an inhaled steroid; book spirometry; arrange a sleep study; give
            doxycycline; request a CT of the chest; refer for rehabilitation""",
    },
    "rheumatology": {
        "complaint": """stiff hands in the morning; pain and swelling of both knees; a red big
            toe; dry eyes and mouth; aching shoulders; a rash on the cheeks""",
        "finding": """a positive rheumatoid factor; erosions on the X-ray; a urate of 540; a
            raised CRP; tender finger joints; antinuclear antibodies""",
        "plan": """start methotrexate; inject the knee; begin allopurinol; check the eyes before
            hydroxychloroquine; reduce prednisolone; ask for hand physiotherapy""",
    },
}
PLAIN = """Thank you for referring this patient; I saw the patient with a relative today; The
    patient lives alone and does not smoke; Appetite and sleep are good; We discussed the
    options at length; A leaflet was given; The other systems were unremarkable on examination;
    Blood tests were taken today; I would be grateful if you could continue the current tablets;
    We will write with the results; Review in three months; The patient was discharged from this
    clinic"""


def _alternatives(text):
    return [" ".join(item.split()) for item in text.split(";")]


class _Writer:
    """Puts letters of one part of the corpus together."""

    def __init__(self, rng, part):
        self.rng, self.part = rng, part

    def about(self, specialty, kind):
        """Return a phrase; each list has two that train lacks."""
        phrases = _alternatives(SPECIALTIES[specialty][kind])
        held_out = self.part != "train" and self.rng.random() < HELD_OUT
        return self.rng.choice(phrases[4:] if held_out else phrases[:4])

    def letter(self):
        """Return specialty, topics and text of a letter."""
        specialty = self.rng.choice(list(SPECIALTIES))
        others = [name for name in SPECIALTIES if name != specialty]
        self.rng.shuffle(others)
        topics = {specialty}
        sentences = [
            f"Presents with {self.about(specialty, 'complaint')}",
            f"We found {self.about(specialty, 'finding')}",
        ]
        if self.rng.random() < 0.6:
            sentences.append(f"Plan: {self.about(specialty, 'plan')}")
        if self.rng.random() < 0.4:
            topics.add(others[0])
            sentences.append(f"Also has {self.about(others[0], 'complaint')}")
        if self.rng.random() < 0.5:
            sentences.append(f"In the past we found {self.about(others[1], 'finding')}, resolved")
        if self.rng.random() < 0.3:
            sentences.append(f"The brother was asked to {self.about(others[2], 'plan')}")
        nb_plain = self.rng.choice([1, 2, 3, 4, 6, 9])
        sentences += self.rng.sample(_alternatives(PLAIN), nb_plain)
        self.rng.shuffle(sentences)
        return specialty, ";".join(sorted(topics)), ". ".join(sentences) + "."


def corpus():
    """Return the content of each file by its name."""
    rng, patient, files, seen = random.Random(20261127), 0, {}, set()
    for part, size in SIZES.items():
        writer, rows = _Writer(rng, part), []
        while len(rows) < size:
            patient += 1
            for _ in range(rng.choice([1, 1, 2, 3])):  # letters of a patient stay in one part
                specialty, topics, text = writer.letter()
                if text not in seen and len(rows) < size:
                    seen.add(text)
                    rows.append((f"P{patient:04}", specialty, topics, text))
        content = io.StringIO(newline="")
        table = csv.writer(content, lineterminator="\n")
        table.writerows([COLUMNS, *rows])
        files[f"{part}.csv"] = content.getvalue()
    return files


if __name__ == "__main__":
    FOLDER = Path(__file__).parent / "synthetic_letters"
    FOLDER.mkdir(exist_ok=True)
    for name, text in corpus().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
