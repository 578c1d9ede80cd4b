import json

import pytest

from medjax.text import Document, Entity
from medjax.text.readers import read_brat, read_documents

HEADER = '{"version": "0.2", "content_type": "text_document_list"}\n'
FRENCH = "fièvre à 39 °C, œdème\tO\n"


@pytest.mark.parametrize("encoding", ["cp1252", "mac_roman", "utf-16", "utf-16-le", "utf-16-be"])
def test_the_error_names_the_likely_encoding_with_a_sample(write, encoding):
    path = write("x.tsv", FRENCH.encode(encoding))
    shown = rf"found byte 0x\w\w at position \d, expected text in utf-8; it looks like {encoding}"
    with pytest.raises(ValueError, match=rf'{shown}, which reads .fièvre à.*encoding="{encoding}"'):
        read_documents(path)
    assert read_documents(path, encoding)[0].text == "fièvre à 39 °C, œdème"


def test_the_code_page_of_dos_is_recognised(write):
    text = "oedème, fièvre à 40 °C, été\tO\n"
    path = write("x.tsv", text.encode("cp850"))
    with pytest.raises(ValueError, match=r'looks like cp850, .*oedème, fièvre.*encoding="cp850"'):
        read_documents(path)


def test_utf_16_of_ascii_letters_is_not_read_as_utf_8(write):
    path = write("x.tsv", "rash\tO\n".encode("utf-16-le"))
    with pytest.raises(ValueError, match=r'byte 0x00 at position 1.*encoding="utf-16-le"'):
        read_documents(path)


def test_without_a_likely_encoding_the_error_asks_for_it(write):
    path = write("x.tsv", "температура\tO\n".encode("cp1251"))
    with pytest.raises(ValueError, match=r"0xf2 at position 0, .*; pass the encoding of the file"):
        read_documents(path)
    with pytest.raises(ValueError, match="found 'utf-9' as encoding; expected one of Python's"):
        read_documents(path, "utf-9")


def test_for_mostly_valid_utf_8_the_error_names_the_damaged_position(write):
    path = write("x.tsv", "éé\tO\nété\tO\n".encode() + b"caf\xe9\tO\n")
    with pytest.raises(ValueError, match=r"most of the file is, so correct it at .*O\\ncaf"):
        read_documents(path)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "cp850"])
def test_utf_8_read_as_another_encoding_is_logged(write, caplog, encoding):
    (document,) = read_documents(write("x.tsv", "fièvre\tO\n"), encoding)
    assert document.text == "fièvre".encode().decode(encoding)
    (message,) = caplog.messages
    assert message.startswith(f"read as {encoding}, but these files are valid UTF-8: ")
    assert "if the first one should read 'fièvre\\tO', pass" in message
    with pytest.raises(ValueError, match=r'expected text in utf-16; it looks like utf-8.*"utf-8"'):
        read_documents(write("x.tsv", "fièvre\tO\n"), "utf-16")


def test_a_wrong_encoding_is_logged_even_if_the_offsets_do_not_fit(write, caplog):
    write("a.txt", "fièvre, toux")
    write("b.txt", "toux")
    paths = [write("b.ann", ""), write("a.ann", "T1\tSign 8 12\ttoux\n")]
    with pytest.raises(ValueError, match="found the text 'toux', expected ' tou'"):
        read_brat(paths, encoding="cp1252")
    assert "read as cp1252, but these files are valid UTF-8" in caplog.text


def test_every_reader_uses_the_encoding(write, tmp_path, caplog):
    write("a.txt", "fièvre".encode("cp1252"))
    write("a.ann", "T1\tSign 0 6\tfièvre\n".encode("cp1252"))
    expected = Document("fièvre", (Entity("Sign", 0, 6),), "a")
    assert read_documents(tmp_path, "cp1252") == [expected]
    record = json.dumps({"text": "fièvre", "anns": []}, ensure_ascii=False)
    path = write("x.jsonl", (HEADER + record).encode("cp1252"))
    assert read_documents(path, "cp1252")[0].text == "fièvre"
    assert not caplog.records
