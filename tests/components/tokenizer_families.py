"""Small tokenizers of every family, and clinical text that is hard to split into words."""

import random
import unicodedata

import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers, processors, trainers

from medjax.models.tokenizer import Tokenizer
from medjax.text import Document, Entity

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
UNKNOWN = "<unk>"

# Texts, each with its entities in order.
SENTENCES = (
    (
        "Pas d'AVC, ni HTA/diabète; l'hypertension artérielle (HTA).",
        ("AVC", "HTA", "diabète", "hypertension artérielle"),
    ),
    ("Céphalées,vertiges et nausées.", ("Céphalées", "vertiges", "nausées")),
    ("Traitement:paracétamol 1g/8h,puis tramadol.", ("paracétamol", "tramadol")),
    ("Fiebre(38,5ºC), disnea y tos.", ("Fiebre", "disnea", "tos")),
)
FINDINGS = (
    "AVC", "HTA", "diabète", "hypertension artérielle", "œdème", "fièvre", "5-HT", "vitamine B12",
    "douleur thoracique", "péricardite aiguë", "tos", "disnea", "β-thalassémie", "HbA1c", "Ödem",
)  # fmt: skip
BEFORE = (
    "d'", "l'", "qu\u2019", "(", "[", "/", "«\xa0", "+", " ", "  ", "\n", "\t", ", ", "-",
    "\N{GRINNING FACE}", "\N{WOMAN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4}\N{ZERO WIDTH JOINER}⚕️ ",
)  # fmt: skip
AFTER = (
    ",", ".", ")", "]", "/", ";", ":", "\xa0»", " ", "  ", "\n", "…", "!!", "%", " (38,5ºC)", "-",
    "\N{SLIGHTLY SMILING FACE}",
)  # fmt: skip
FILLERS = (
    "pas de", "1g/8h", "puis 500mg", "ni", "10 mg/mL", "chez le patient", "y", "with", "<5", "±2",
)  # fmt: skip


def document(text, parts, name=""):
    """Return a document whose entities are the given parts of its text, in order."""
    entities, position = [], 0
    for part in parts:
        start = text.index(part, position)
        position = start + len(part)
        entities.append(Entity("Finding", start, position))
    return Document(text, tuple(entities), name)


def generated(count, *, seed=0, findings=4):
    """Return documents with findings between elisions, slashes, units, brackets and emoji."""
    rng = random.Random(seed)
    documents = []
    for number in range(count):
        text, entities = f"{number} ", []
        for _ in range(findings):
            finding = rng.choice(FINDINGS)
            if rng.random() < 0.3:
                finding = unicodedata.normalize("NFD", finding)
            text += f"{rng.choice(FILLERS)} " + rng.choice(BEFORE)
            entities.append(Entity("Finding", len(text), len(text) + len(finding)))
            text += finding + rng.choice(AFTER) + " "
        documents.append(Document(text, tuple(entities), f"generated {number}"))
    return documents


CASES = [document(text, parts, f"case {n}") for n, (text, parts) in enumerate(SENTENCES)]
CORPUS = [text for text, _ in SENTENCES] * 3 + [d.text for d in generated(60, seed=1)]


def _word_piece():
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return backend, trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=SPECIAL, show_progress=False
    )


def _byte_level(*, trim, prefix):
    def make():
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
        backend.post_processor = processors.RobertaProcessing(
            ("</s>", 2), ("<s>", 0), trim_offsets=trim, add_prefix_space=prefix
        )
        return backend, trainers.BpeTrainer(
            vocab_size=450,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )

    return make


def _modernbert():
    """Return ModernBERT's: composed characters, untrimmed offsets, tokens for runs of spaces."""
    backend, trainer = _byte_level(trim=False, prefix=False)()
    backend.normalizer = normalizers.NFC()
    backend.post_processor = None
    backend.add_tokens([tokenizers.AddedToken(" " * count, normalized=False) for count in (2, 3)])
    return backend, trainer


def _metaspace_bpe(prepend):
    def make():
        backend = tokenizers.Tokenizer(models.BPE(unk_token=UNKNOWN))
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend)
        return backend, trainers.BpeTrainer(
            vocab_size=250, special_tokens=SPECIAL, show_progress=False
        )

    return make


def _metaspace_unigram(prepend):
    def make():
        backend = tokenizers.Tokenizer(models.Unigram())
        backend.normalizer = normalizers.NFKC()
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend)
        return backend, trainers.UnigramTrainer(
            vocab_size=250, special_tokens=SPECIAL, unk_token=UNKNOWN, show_progress=False
        )

    return make


def _deberta(*, split_by_punct, older=False):
    """Make what `DebertaV2Tokenizer` of transformers 5 has, or what version 4 had."""

    def make():
        backend = tokenizers.Tokenizer(models.Unigram())
        spaces = normalizers.Replace(Regex(" {2,}" if older else r"\s{2,}|[\n\r\t]"), " ")
        steps = [normalizers.Strip(), normalizers.NFKC(), spaces] if older else [
            spaces, normalizers.NFC(), normalizers.Strip(left=False, right=True)
        ]  # fmt: skip
        backend.normalizer = normalizers.Sequence(steps)
        cuts = [pre_tokenizers.Punctuation(behavior="isolated")] if split_by_punct else []
        cuts.append(pre_tokenizers.Metaspace(prepend_scheme="always"))
        backend.pre_tokenizer = pre_tokenizers.Sequence(cuts)
        return backend, trainers.UnigramTrainer(
            vocab_size=250, special_tokens=SPECIAL, unk_token=UNKNOWN, show_progress=False
        )

    return make


FAMILIES = {
    "WordPiece": _word_piece,
    "byte-level BPE": _byte_level(trim=True, prefix=False),
    "byte-level BPE, prefix space": _byte_level(trim=True, prefix=True),
    "byte-level BPE, not trimmed": _byte_level(trim=False, prefix=False),
    "byte-level BPE, not trimmed, prefix space": _byte_level(trim=False, prefix=True),
    "byte-level BPE of ModernBERT": _modernbert,
    "Metaspace BPE": _metaspace_bpe("never"),
    "Metaspace BPE, prefix space": _metaspace_bpe("always"),
    "Metaspace Unigram": _metaspace_unigram("never"),
    "Metaspace Unigram, prefix space": _metaspace_unigram("always"),
    "Metaspace Unigram, first prefix space": _metaspace_unigram("first"),
    "Metaspace Unigram of DeBERTa": _deberta(split_by_punct=False),
    "Metaspace Unigram of DeBERTa, punctuation split": _deberta(split_by_punct=True),
    "Metaspace Unigram of DeBERTa, older": _deberta(split_by_punct=False, older=True),
}


def make_tokenizer(family):
    """Return the tokenizer of a family, trained on `CORPUS`."""
    backend, trainer = FAMILIES[family]()
    cuts = backend.pre_tokenizer
    if "Metaspace" in family:
        # As SentencePiece does in training: no piece joins letters with other characters.
        scripts = pre_tokenizers.Split(Regex(r"\u2581?(\p{L}\p{M}*)+|\u2581?\p{N}+"), "isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence([cuts, scripts])
    backend.train_from_iterator(CORPUS, trainer)
    backend.pre_tokenizer = cuts
    ids = {token: backend.token_to_id(token) for token in SPECIAL}
    if backend.post_processor is None:
        around = [("<s>", ids["<s>"]), ("</s>", ids["</s>"])]
        backend.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=around)
    return Tokenizer(backend, ids["<pad>"], ids[UNKNOWN], {})
