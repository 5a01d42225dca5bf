"""The readers of GLUE's files, on small files of their formats."""

import pytest

import glue
from glue import Example


def written(folder, text, encoding="utf-8"):
    path = folder / "train.tsv"
    path.write_bytes(text.encode(encoding))
    return path


def test_cola_has_no_header_and_an_unpaired_quotation_mark_is_a_character(tmp_path):
    path = written(tmp_path, 'gj04\t1\t\tHe said "no.\nks08\t0\t*\tThe more\u2028the.\n')
    assert glue.COLA.read(path) == [Example('He said "no.', None, 1), Example("The more\u2028the.", None, 0)]


def test_mrpc_begins_with_a_byte_order_mark_and_ends_its_lines_with_crlf(tmp_path):
    header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
    path = written(tmp_path, header + '1\t7\t8\t"One.\tTwo".\r\n', "utf-8-sig")
    assert glue.MRPC.read(path) == [Example('"One.', 'Two".', 1)]


def test_sts_b_is_read_by_the_names_of_its_columns(tmp_path):
    header = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
    path = written(tmp_path, header + "0\tnews\tf\t2012\t1\tnone\tnone\tA plane.\tAn air plane.\t4.750\n")
    assert glue.STS_B.read(path) == [Example("A plane.", "An air plane.", 4.75)]


@pytest.mark.parametrize(
    ("task", "text", "said"),
    [
        ("cola", "", "is empty"),
        ("cola", "a\t1\t\tOne.\nb\t1\tTwo.\n", ":2: has 3 columns, and the first line 4"),
        ("cola", "a\t2\t\tOne.\n", ":1: the label '2' is not one of the classes 0 to 1"),
        ("mrpc", "#1 String\t#2 String\nOne.\tTwo.\n", "has no column 'Quality'"),
        ("sts-b", "sentence1\tsentence2\tscore\nOne.\tTwo.\thigh\n", ":2: the label 'high' is no number"),
    ],
)
def test_a_malformed_file_is_refused_with_its_place(tmp_path, task, text, said):
    with pytest.raises(ValueError) as refusal:
        glue.TASKS[task].read(written(tmp_path, text))
    assert said in str(refusal.value)
