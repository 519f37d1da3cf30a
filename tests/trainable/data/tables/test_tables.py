"""Tables as people have them: read right, or refused by name; never other labels. The truth is made with each table."""

import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.faces import write_images, write_zip
from trainable.config import DataConfig, SplitConfig
from trainable.data import FaceTable, make_split, open_table, split_said
from trainable.data.tables.table import attributes_by_file
from trainable.errors import RequestError

Text = Callable[[pytest.ExceptionInfo[Exception]], str]
COUNT = 20
SMILING = [-1 if number % 3 else 1 for number in range(COUNT)]
MALE = [1 if number % 2 else -1 for number in range(COUNT)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with twenty images in `faces`, and no table yet."""
    write_images(tmp_path / "faces", SMILING, side=8)
    return tmp_path


def names(suffix: str = ".jpg") -> list[str]:
    return [f"{number:06d}{suffix}" for number in range(1, COUNT + 1)]


def lines(separator: str = ",", end: str = "", head: str | None = None) -> list[str]:
    """Header and rows: id, filename, Smiling, Male."""
    header = head or separator.join(("id", "filename", "Smiling", "Male"))
    rows = zip(range(1, COUNT + 1), names(), SMILING, MALE, strict=True)
    return [header, *(separator.join(map(str, row)) + end for row in rows)]


def put(
    root: Path, text: str | list[str], name: str = "faces.csv", encoding: str = "utf-8"
) -> Path:
    path = root / name
    path.write_bytes(
        "\n".join([*text, ""]).encode(encoding) if isinstance(text, list) else text.encode(encoding)
    )
    return path


def opened(root: Path, target: str = "Smiling", **settings: object) -> FaceTable:
    return open_table(DataConfig(images=root / "faces", target=target, **settings))


def is_true(table: FaceTable, smiling: list[int] = SMILING) -> bool:
    """Has each image the label that it was made with?"""
    truth = dict(zip((Path(name).stem for name in names()), smiling, strict=True))
    found = {Path(file).stem: label for file, label in table.rows[["file", "label"]].values}
    return found == {stem: int(value == 1) for stem, value in truth.items()} and all(
        (table.images / file).is_file() for file in table.rows["file"]
    )


def says(root: Path, refused: Text, target: str = "Smiling", **settings: object) -> str:
    with pytest.raises(RequestError) as caught:
        opened(root, target, **settings)
    return refused(caught)


# ---------------------------------------------------------------- text


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_table_is_read_by_its_own_text(
    root: Path, separator: str, end: str, encoding: str
) -> None:
    put(root, end.join(lines(separator)) + end, encoding=encoding)
    table = opened(root)
    assert is_true(table)
    assert list(table.attributes.columns) == ["id", "Smiling", "Male"]
    assert table.attributes["Male"].tolist() == MALE


@pytest.mark.parametrize("said", ["sep=|", "sep=;", '"sep=|"', "SEP=;"])
def test_a_first_line_may_say_what_separates(root: Path, said: str) -> None:
    separator = said.strip('"')[-1]
    put(root, [said, *lines(separator)])
    assert is_true(opened(root))


def test_what_separates_is_not_guessed_where_two_would_do(root: Path, refused: Text) -> None:
    put(
        root,
        ["filename;Smiling,Male", *(f"{n};1,{s}" for n, s in zip(names(), SMILING, strict=True))],
    )
    assert "commas or semicolons" in says(root, refused)
    put(
        root,
        [
            "sep=,",
            *(
                f'"{n}",{s}'
                for n, s in zip(["filename", *names()], ["Smiling", *SMILING], strict=True)
            ),
        ],
    )
    assert is_true(opened(root))


@pytest.mark.parametrize("rows", ["all", "first", "header too"])
def test_a_delimiter_at_the_end_of_lines_shifts_no_column(root: Path, rows: str) -> None:
    plain, ended = lines(), lines(end=",")
    text = {
        "all": [plain[0], *ended[1:]],
        "first": [plain[0], ended[1], *plain[2:]],
        "header too": [plain[0] + ",", *ended[1:]],
    }[rows]
    put(root, text)
    table = opened(root)
    assert is_true(table)
    assert list(table.attributes.columns) == ["id", "Smiling", "Male"]
    assert is_true(opened(root, "Male"), MALE)


def test_a_column_without_a_name_is_a_column(root: Path) -> None:
    """As pandas writes its index."""
    put(root, lines(head=",filename,Smiling,Male"))
    assert is_true(opened(root))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("7,000007.jpg,1", "line 8 has 3"),
        ("7,000007.jpg,1,1,1", "line 8 has 5"),
        ("7,000007.jpg,1,1,,1", "line 8 has 6"),
        ('7,"000007.jpg,1,1', "never closed"),
    ],
)
def test_a_ragged_row_is_refused_with_its_line(
    root: Path, refused: Text, row: str, told: str
) -> None:
    text = lines()
    text[7] = row
    put(root, text)
    assert told in says(root, refused)


def test_blank_lines_and_rows_of_delimiters_alone_are_no_rows(root: Path) -> None:
    text = lines()
    put(root, [*text[:5], "", *text[5:], ",,,", "  "])
    assert is_true(opened(root))


def test_quoted_fields_hold_delimiters_quotes_and_line_ends(root: Path) -> None:
    rows = [f'{name},{s},"a ""b"", c\nd"' for name, s in zip(names(), SMILING, strict=True)]
    put(root, ["filename,Smiling,note", *rows])
    table = opened(root)
    assert is_true(table)
    assert set(table.attributes["note"]) == {'a "b", c\nd'}


def test_of_several_delimiters_in_the_header_the_one_that_fits_every_row_separates(
    root: Path,
) -> None:
    """And not the one that gives the most columns."""
    rows = [f"{name};{s};1" for name, s in zip(names(), SMILING, strict=True)]
    put(root, ["filename;Smiling;big, round, or open eyes", *rows])
    table = opened(root)
    assert is_true(table)
    assert list(table.attributes.columns) == ["Smiling", "big, round, or open eyes"]


def test_a_row_that_ends_empty_among_rows_with_an_extra_delimiter_is_refused(
    root: Path, refused: Text
) -> None:
    """Its last field may be empty, or be lacking with the delimiter of the others at its end."""
    text = lines(end=",")
    text[0] = text[0].removesuffix(",")
    text[4] = "4,000004.jpg,1,"
    put(root, text)
    said = says(root, refused)
    assert "must have 4 fields like the header, but line 5 may lack the last one" in said
    assert "lines such as 2 end with an extra delimiter" in said


@pytest.mark.parametrize("text", ["sep=;", "sep=;\n\n"])
def test_a_table_of_nothing_but_what_separates_is_empty(
    root: Path, refused: Text, text: str
) -> None:
    path = put(root, text)
    assert says(root, refused) == f"{path} must be a table, but it is empty"


def test_a_header_that_names_a_column_twice_is_refused(root: Path, refused: Text) -> None:
    put(root, lines(head="id,filename,Smiling, Smiling "))
    assert "'Smiling' occurs 2 times" in says(root, refused)


def test_a_table_without_a_header_is_refused(root: Path, refused: Text) -> None:
    put(root, lines()[1:])
    assert "line 1" in (said := says(root, refused)) and "000001.jpg" in said


def test_blanks_around_names_and_values_are_left_out_and_said_where_values_merge(
    root: Path,
) -> None:
    words = [
        "yes " if s == 1 and n % 2 else "yes" if s == 1 else "no" for n, s in enumerate(SMILING)
    ]
    put(
        root,
        [" filename , Smiling ", *(f" {n} , {w}" for n, w in zip(names(), words, strict=True))],
    )
    table = opened(root)
    assert is_true(table) and table.classes == ("no", "yes")
    assert "'yes'" in table.notes[0]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            "filename,Smiling\nGrün.jpg,1\n".encode("cp1252"),
            "line 2 is not; it may be Windows-1252",
        ),
        ("filename,Smiling\na.jpg,1\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (b"\x89PNG\r\n\x1a\n\x00\x01", "no"),
        (b"PAR1 and nothing", "Parquet"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Excel format"),
        (b"filename Smiling\na.jpg 1\n", "commas, semicolons or tabs"),
    ],
    ids=str,
)
def test_what_is_no_such_text_is_refused_by_what_it_is(
    root: Path, refused: Text, content: bytes, told: str
) -> None:
    (root / "faces.csv").write_bytes(content)
    assert told in says(root, refused)


# ---------------------------------------------------------------- CelebA's own


def celeba(count: int | str = COUNT) -> list[str]:
    rows = zip(names(), SMILING, MALE, strict=True)
    return [str(count), "Smiling Male", *(f"{name}  {a:2d} {b:2d}" for name, a, b in rows)]


def test_celebas_own_text_is_read_and_a_cut_one_refused_unless_allowed(
    root: Path, refused: Text
) -> None:
    put(root, celeba(), "list_attr_celeba.txt")
    assert is_true(opened(root))
    put(root, celeba(202599), "list_attr_celeba.txt")
    said = says(root, refused)
    assert "202,599" in said and "it has 20" in said and "data.row_count=ignore" in said
    assert is_true(opened(root, row_count="ignore"))


def test_a_ragged_row_of_celebas_own_text_is_refused_with_its_line(
    root: Path, refused: Text
) -> None:
    text = celeba()
    text[9] = "000008.jpg 1"
    put(root, text, "list_attr_celeba.txt")
    assert "line 10 has 2" in says(root, refused)


# ---------------------------------------------------------------- other formats


def frame() -> pd.DataFrame:
    return pd.DataFrame({"filename": names(), "Smiling": SMILING, "Male": MALE})


def test_parquet_is_read_whatever_its_index(root: Path) -> None:
    frame().set_index("filename").to_parquet(root / "faces.parquet")
    assert is_true(opened(root))


def test_missing_numbers_of_parquet_are_missing_labels(root: Path, refused: Text) -> None:
    made = frame().astype({"Smiling": "float"})
    made.loc[3, "Smiling"] = np.nan
    made.to_parquet(root / "faces.parquet")
    assert "1 of 20 have none" in says(root, refused)
    table = opened(root, missing="drop")
    assert table.unlabelled == ("000004.jpg",) and len(table.rows) == COUNT - 1


def test_excel_is_read_where_its_reader_is_there(root: Path, refused: Text) -> None:
    pytest.importorskip("openpyxl")
    frame().to_excel(root / "faces.xlsx", index=False)
    assert is_true(opened(root))
    with pd.ExcelWriter(root / "faces.xlsx") as writer:
        for sheet in ("one", "two"):
            frame().to_excel(writer, sheet_name=sheet, index=False)
    assert "one, two" in says(root, refused)


@pytest.mark.parametrize("members", [["photo.jpg"], ["[Content_Types].xml"]], ids=str)
def test_a_zip_in_the_place_of_an_excel_file_is_refused(
    root: Path, refused: Text, members: list[str]
) -> None:
    pytest.importorskip("openpyxl")
    path = root / "faces.xlsx"
    with zipfile.ZipFile(path, "w") as book:
        for name in members:
            book.writestr(name, "")
    said = says(root, refused)
    assert said.startswith(f"{path} must be a table, but it is a zip and not an Excel file")
    assert said.endswith("; extract it")


def test_bytes_in_parquet_are_read_as_the_text_that_they_hold(root: Path) -> None:
    """As Spark writes strings; what is no text stays told apart."""
    made = frame()
    for column in ("filename", "Smiling"):
        made[column] = [str(value).encode() for value in made[column]]
    made["raw"] = [b"\xff" if n % 2 else b"ok" for n in range(COUNT)]
    made.to_parquet(root / "faces.parquet")
    table = opened(root)
    assert is_true(table)
    assert set(table.attributes["raw"]) == {"\\xff", "ok"}


def test_without_the_reader_of_excel_its_extra_is_named(
    root: Path, refused: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with zipfile.ZipFile(root / "faces.xlsx", "w") as book:
        book.writestr("[Content_Types].xml", "")
    assert "[excel]" in says(root, refused)


@pytest.mark.parametrize("name", ["faces.tsv", "faces.parquet", "labels.tsv", "labels.parquet"])
def test_tables_of_other_kinds_are_found_beside_the_images(root: Path, name: str) -> None:
    if name.endswith("tsv"):
        put(root, lines("\t"), name)
    else:
        frame().to_parquet(root / name)
    assert is_true(opened(root))
    assert opened(root).table == root / name


def test_two_tables_beside_the_images_are_refused_with_their_names(
    root: Path, refused: Text
) -> None:
    put(root, lines(), "a.csv")
    put(root, lines("\t"), "b.tsv")
    assert "a.csv, b.tsv" in says(root, refused)


@pytest.mark.parametrize("inside", ["labels.csv", "pack/labels.csv", "pack/tables/labels.tsv"])
def test_the_table_may_lie_in_the_zip(tmp_path: Path, inside: str) -> None:
    write_images(tmp_path / "made", SMILING, side=8)
    archive = write_zip(tmp_path / "made", tmp_path / "pack.zip", "pack/faces")
    with zipfile.ZipFile(archive, "a") as pack:
        pack.writestr(inside, "\n".join(lines("\t" if inside.endswith("tsv") else ",")))
    assert is_true(open_table(DataConfig(images=archive, target="Smiling")))


# ---------------------------------------------------------------- labels


def labelled(root: Path, values: Sequence[object]) -> None:
    put(root, ["filename,Smiling", *(f"{n},{v}" for n, v in zip(names(), values, strict=True))])


@pytest.mark.parametrize("word", ["None", "NA", "NaN", "null", "?", "-", "−", "n/a"])
def test_one_of_two_words_is_a_class_whatever_it_may_mean_elsewhere(root: Path, word: str) -> None:
    labelled(root, ["some" if s == 1 else word for s in SMILING])
    table = opened(root, positive="some")
    assert is_true(table) and table.classes == (word, "some")


@pytest.mark.parametrize("word", ["None", "NA", "NaN", "null", "?", "-", "−", "n/a"])
def test_beside_two_other_values_such_a_word_is_never_taken_for_missing_unasked(
    root: Path, refused: Text, word: str
) -> None:
    labelled(root, [word if n == 4 else s for n, s in enumerate(SMILING)])
    said = says(root, refused)
    assert f'data.missing_values=["{word}"]' in said and "data.missing_values=[]" in said
    assert word in says(root, refused, positive="1")
    assert "1 of 20 have none, row 5" in says(root, refused, missing_values=[word])
    table = opened(root, missing_values=[word], missing="drop")
    assert table.unlabelled == ("000005.jpg",) and table.classes == ("-1", "1")
    rest = opened(root, missing_values=[], positive="1")
    assert rest.rows["label"].tolist() == [int(s == 1 and n != 4) for n, s in enumerate(SMILING)]


def test_an_empty_label_is_missing_and_counted(root: Path, refused: Text) -> None:
    labelled(root, ["" if n in (2, 9) else s for n, s in enumerate(SMILING)])
    said = says(root, refused)
    assert "2 of 20 have none, row 3 first" in said and "data.missing=drop" in said
    table = opened(root, missing="drop")
    assert table.unlabelled == ("000003.jpg", "000010.jpg")
    assert len(table.rows) == len(table.attributes) == 18


def test_a_target_without_any_value_and_rows_without_both_are_refused(
    root: Path, refused: Text
) -> None:
    labelled(root, [""] * COUNT)
    path = root / "faces.csv"
    said = f"column 'Smiling' of {path} must have two values, but it has none"
    assert says(root, refused) == says(root, refused, missing="drop") == said
    labelled(root, [s if n < 10 else "" for n, s in enumerate(SMILING)])
    for name in names()[:10]:
        (root / "faces" / name).unlink()
    said = f"at least one row of {path} must have a label and an image, but none has both"
    assert says(root, refused, missing="drop") == said


def test_one_value_against_all_others(root: Path, refused: Text) -> None:
    animals = ["cat" if s == 1 else ("dog", "cow")[n % 2] for n, s in enumerate(SMILING)]
    labelled(root, animals)
    assert "data.positive=VALUE" in says(root, refused)
    table = opened(root, positive="cat")
    assert is_true(table) and table.classes == ("not cat", "cat")
    assert "cow (" in table.labelled and "dog (" in table.labelled
    assert table.labelled.endswith("counts as 1")


@pytest.mark.parametrize(
    ("low", "high"), [("9", "10"), ("-1", "1.0"), ("1e-1", "1"), ("a", "b"), ("False", "True")]
)
def test_the_larger_of_two_values_counts_as_1_by_size_where_they_are_numbers(
    root: Path, low: str, high: str
) -> None:
    labelled(root, [high if s == 1 else low for s in SMILING])
    table = opened(root)
    assert is_true(table)
    assert table.labelled.endswith(f"{high} ({SMILING.count(1)} rows) counts as 1")


def test_a_number_written_in_two_ways_is_one_value(root: Path) -> None:
    labelled(root, [("1.0" if n % 2 else "1") if s == 1 else "0" for n, s in enumerate(SMILING)])
    table = opened(root)
    assert is_true(table) and table.classes == ("0", "1")


# ---------------------------------------------------------------- joins and folders


def without_table(root: Path, name: Callable[[str], str]) -> None:
    put(
        root,
        ["filename,Smiling", *(f"{name(n)},{s}" for n, s in zip(names(), SMILING, strict=True))],
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (lambda n: n.upper(), "ignoring case"),
        (lambda n: n.replace(".jpg", ".png"), "without suffix"),
        (lambda n: n.replace(".jpg", ".JPEG"), "without suffix"),
        (lambda n: f"images/{n}", "without 1 leading folder"),
        (lambda n: f"/data/celeba/{n}", "without 2 leading folders"),
        (lambda n: f"C:\\celeba\\{n}", "without 2 leading folders"),
        (lambda n: n.removesuffix(".jpg"), "without suffix"),
        (lambda n: str(int(n.removesuffix(".jpg"))), "as numbers"),
    ],
)
def test_names_from_another_hand_are_joined_and_it_is_said(
    root: Path, name: Callable[[str], str], said: str
) -> None:
    without_table(root, name)
    table = opened(root)
    assert is_true(table)
    assert f"20 of 20 rows (20 {said}" in table.found.replace("by their names ", "")


def test_a_name_that_two_files_would_answer_to_is_joined_to_neither(
    root: Path, refused: Text
) -> None:
    without_table(root, lambda n: n.removesuffix(".jpg"))
    (root / "faces" / "000003.png").write_bytes((root / "faces" / "000003.jpg").read_bytes())
    assert "1 of 20 have none" in (said := says(root, refused)) and "000003" in said


def test_two_rows_are_never_joined_to_one_file(root: Path, refused: Text) -> None:
    put(
        root,
        [
            "filename,Smiling",
            "000001.png,1",
            *(f"{n},{s}" for n, s in zip(names(), SMILING, strict=True)),
        ],
    )
    assert "1 of 21 have none" in (said := says(root, refused)) and "000001.png" in said


def test_captions_beside_the_images_are_no_images(root: Path) -> None:
    for name in names(".txt"):
        (root / "faces" / name).write_text("a caption")
    without_table(root, lambda n: n.removesuffix(".jpg"))
    assert is_true(opened(root))


def test_a_thumbnail_in_an_inner_folder_stands_for_no_image(root: Path, refused: Text) -> None:
    without_table(root, lambda n: n)
    (root / "faces" / "thumbs").mkdir()
    (root / "faces" / "000004.jpg").rename(root / "faces" / "thumbs" / "000004.jpg")
    assert "1 of 20 have none" in says(root, refused)


def test_of_several_folders_the_one_with_most_images_is_taken_and_a_tie_refused(
    tmp_path: Path, refused: Text
) -> None:
    write_images(tmp_path / "faces" / "edges", SMILING[:5], side=8)
    write_images(tmp_path / "faces" / "images", SMILING, side=8)
    put(tmp_path, lines())
    table = opened(tmp_path)
    assert table.images == tmp_path / "faces" / "images" and is_true(table)
    write_images(tmp_path / "faces" / "edges", SMILING, side=8)
    said = says(tmp_path, refused)
    assert "faces/edges (20) and" in said and "faces/images (20) hold about as many" in said


def test_links_to_folders_are_followed_and_loops_are_not(root: Path) -> None:
    (root / "linked").mkdir()
    (root / "linked" / "images").symlink_to(root / "faces", target_is_directory=True)
    (root / "linked" / "again").symlink_to(root / "linked", target_is_directory=True)
    put(root / "linked", lines())
    table = open_table(DataConfig(images=root / "linked", target="Smiling"))
    assert is_true(table)


def test_a_zip_with_backslashes_in_its_names_is_read(root: Path) -> None:
    with zipfile.ZipFile(root / "pack.zip", "w") as pack:
        for name in names():
            member = zipfile.ZipInfo(f"faces\\{name}")
            member.filename = f"faces\\{name}"  # ZipInfo turns them on some systems
            pack.writestr(member, (root / "faces" / name).read_bytes())
    put(root, lines(), "pack.csv")
    assert is_true(open_table(DataConfig(images=root / "pack.zip", target="Smiling")))


def test_of_several_columns_that_may_be_file_names_the_one_with_images_is_taken(
    root: Path, refused: Text
) -> None:
    rows = zip(names(), names(), SMILING, strict=True)
    put(root, ["mask,image,Smiling", *(f"mask_{mask},{name},{s}" for mask, name, s in rows)])
    assert is_true(opened(root))
    rows = zip(names(), names(), SMILING, strict=True)
    put(root, ["a,b,Smiling", *(f"{a},{b},{s}" for a, b, s in rows)])
    assert "data.file_column" in says(root, refused)
    assert is_true(opened(root, file_column="b"))


@pytest.mark.parametrize("suffix", [".jpg", ""])
def test_of_columns_with_names_unlike_a_file_columns_the_one_that_has_images_is_taken(
    root: Path, refused: Text, suffix: str
) -> None:
    """With image names, or with names without a suffix, which must all be images."""
    rows = zip(names(suffix), SMILING, strict=True)
    put(root, ["first,second,Smiling", *(f"l{name},{name},{s}" for name, s in rows)])
    assert is_true(opened(root))
    assert opened(root).file_column == "second"
    for name in names()[:9]:
        (root / "faces" / name).unlink()
    if suffix:
        assert "9 of 20 have none" in says(root, refused)
    else:
        assert "it could be second; name it as data.file_column" in says(root, refused)


def test_a_column_of_file_names_that_is_not_there_gets_the_nearest(
    root: Path, refused: Text
) -> None:
    path = put(root, lines())
    assert says(root, refused, file_column="filenam") == (
        f"data.file_column must be a column of {path}, but it has no column 'filenam' "
        "(did you mean filename?)"
    )


# ---------------------------------------------------------------- files beside the table


def png_faces(tmp_path: Path, sides: int = COUNT) -> Path:
    """PNG images, with CelebA's own files that say .jpg."""
    from tests.support.faces import picture

    folder = tmp_path / "faces"
    folder.mkdir()
    for number, (name, smiles) in enumerate(zip(names(".png"), SMILING, strict=True)):
        picture(smiles, number, 8).save(folder / name)
    put(
        tmp_path,
        ["image_id,Smiling", *(f"{n},{s}" for n, s in zip(names(".png"), SMILING, strict=True))],
    )
    put(
        tmp_path,
        [f"{n} {i // 4 + 1}" for i, n in enumerate(names()[:sides])],
        "identity_CelebA.txt",
    )
    put(
        tmp_path,
        [f"{n} {(0, 0, 0, 1, 2)[i % 5]}" for i, n in enumerate(names())],
        "list_eval_partition.txt",
    )
    return tmp_path


def test_identities_and_parts_are_joined_whatever_the_suffix_and_counted(tmp_path: Path) -> None:
    table = opened(png_faces(tmp_path))
    assert table.rows["identity"].tolist() == [i // 4 + 1 for i in range(COUNT)]
    assert table.rows["partition"].tolist() == [
        ("train", "train", "train", "validation", "test")[i % 5] for i in range(COUNT)
    ]
    assert table.joined["identity"] == "identity_CelebA.txt: 20 of 20 rows (20 without suffix)"


def test_identities_that_lack_images_are_refused_unless_that_is_allowed(
    tmp_path: Path, refused: Text
) -> None:
    root = png_faces(tmp_path, sides=17)
    said = says(root, refused)
    assert "lacks 3 of 20: 000018.png" in said and "data.identities=incomplete" in said
    assert opened(root, identities="incomplete").rows["identity"].isna().sum() == 3
    assert "identity" not in opened(root, identities="ignore").rows


def test_a_side_file_that_names_more_than_the_table_is_no_matter(tmp_path: Path) -> None:
    root = png_faces(tmp_path)
    with (root / "identity_CelebA.txt").open("a") as file:
        file.writelines(f"{number:06d}.jpg 9\n" for number in range(100, 200))
    assert is_true(opened(root))


# ---------------------------------------------------------------- parts that are given


def with_parts(root: Path, words: list[object]) -> FaceTable:
    rows = zip(names(), MALE, words, strict=True)
    put(root, ["filename,Smiling,split", *(f"{n},{s},{w}" for n, s, w in rows)])
    return opened(root)


@pytest.mark.parametrize(
    "words",
    [
        ("train", "val", "test"),
        ("Training", "valid", "TEST"),
        ("train", "validation", "testing"),
        (0, 1, 2),
    ],
)
def test_a_column_says_the_parts(root: Path, words: tuple[object, ...]) -> None:
    places = [0 if n < 12 else 1 if n < 16 else 2 for n in range(COUNT)]
    table = with_parts(root, [words[place] for place in places])
    config = SplitConfig(column="split")
    split = make_split(table, config)
    assert split["part"].tolist() == [("train", "validation", "test")[place] for place in places]
    assert split_said(table, config, split).startswith(
        "12 train / 4 validation / 4 test; as given by column 'split'"
    )


def test_parts_without_validation_are_refused_or_take_it_from_training(
    root: Path, refused: Text
) -> None:
    table = with_parts(root, ["train" if n < 16 else "test" for n in range(COUNT)])
    with pytest.raises(RequestError) as caught:
        make_split(table, SplitConfig(column="split"))
    assert "data.split.validation=0.1" in refused(caught)
    split = make_split(table, SplitConfig(column="split", validation=0.25))
    assert split["part"].value_counts().to_dict() == {"train": 12, "validation": 4, "test": 4}
    assert (split["part"][16:] == "test").all()


@pytest.mark.parametrize(("word", "told"), [("", "nothing"), ("maybe", "'maybe'"), ("3", "'3'")])
def test_a_word_that_is_no_part_is_refused(root: Path, refused: Text, word: str, told: str) -> None:
    table = with_parts(
        root, [word if n == 5 else ("train", "val", "test")[n % 3] for n in range(COUNT)]
    )
    with pytest.raises(RequestError) as caught:
        make_split(table, SplitConfig(column="split"))
    assert told in refused(caught) and "000006.jpg" in refused(caught)


# ---------------------------------------------------------------- class folders


def class_folders(root: Path, *names_of: str, parts: tuple[str, ...] = ("",)) -> Path:
    for part in parts:
        for place, name in enumerate(names_of):
            write_images(root / "faces" / part / name, [2 * (place % 2) - 1] * 6, side=8)
    return root


def test_two_class_folders_need_no_table(tmp_path: Path) -> None:
    root = class_folders(tmp_path, "female", "male")
    table = opened(root, "Male")
    assert table.table is None and table.classes == ("female", "male")
    assert [Path(f).parent.name == "male" for f in table.rows["file"]] == table.rows[
        "label"
    ].tolist()
    assert opened(root, "female").classes == ("male", "female")
    assert opened(root, "x", positive="female").classes == ("male", "female")


def test_a_positive_class_without_a_folder_gets_the_nearest(tmp_path: Path, refused: Text) -> None:
    root = class_folders(tmp_path, "cat", "dog")
    (root / "faces" / "loop").symlink_to(root / "faces" / "loop")
    assert says(root, refused, positive="dgo") == (
        f"data.positive must be one of the class folders cat, dog in {root / 'faces'}, "
        "but it is 'dgo' (did you mean dog?)"
    )


def test_of_more_class_folders_the_target_names_one(tmp_path: Path, refused: Text) -> None:
    root = class_folders(tmp_path, "cat", "cow", "dog")
    assert "data.target must name the one" in says(root, refused, "animal")
    table = opened(root, "cat")
    assert table.classes == ("not cat", "cat") and table.rows["label"].sum() == 6


def test_parts_above_the_class_folders_are_taken_where_they_are_asked_for(
    tmp_path: Path, refused: Text
) -> None:
    root = class_folders(tmp_path, "no", "yes", parts=("train", "val", "test"))
    table = opened(root)
    with pytest.raises(RequestError) as caught:
        make_split(table, SplitConfig())
    assert "data.split=official" in refused(caught)
    split = make_split(table, SplitConfig(official=True))
    assert [Path(f).parts[0] for f in split["file"]] == [
        {"train": "train", "validation": "val", "test": "test"}[part] for part in split["part"]
    ]
    drawn = make_split(table, SplitConfig(seed=1, validation=0.2, test=0.2))
    assert drawn["part"].value_counts()["test"] == 7


def test_a_name_is_read_the_same_under_any_working_folder(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root, lines())
    monkeypatch.chdir(root)
    assert is_true(open_table(DataConfig(images=Path("faces"), target="Smiling")))


# ---------------------------------------------------------------- found by somebody who tried to break it


def table_of(
    root: Path, rows: Sequence[tuple[str, object]], head: str = "filename,Smiling"
) -> None:
    put(root, [head, *(f"{name},{value}" for name, value in rows)])


def plain_rows() -> list[tuple[str, int]]:
    return list(zip(names(), SMILING, strict=True))


def test_a_file_that_one_row_has_found_answers_to_no_other(root: Path, refused: Text) -> None:
    table_of(root, [*plain_rows(), ("img/000001.jpg", 1)])
    assert "1 of 21 have none" in (said := says(root, refused)) and "img/000001.jpg" in said


def test_an_image_that_is_gone_is_not_replaced_by_one_of_another_folder(
    tmp_path: Path, refused: Text
) -> None:
    for person in ("alice", "bob"):
        write_images(tmp_path / "faces" / person, SMILING[:6], side=8)
    (tmp_path / "faces" / "bob" / "000006.jpg").unlink()
    rows = [(f"{who}/{n:06d}.jpg", n % 2) for who in ("alice", "bob") for n in range(1, 7)]
    table_of(tmp_path, [row for row in rows if row[0] != "alice/000006.jpg"])
    assert "bob/000006.jpg" in says(tmp_path, refused)


def test_nor_by_its_mask_nor_by_a_number(root: Path, refused: Text) -> None:
    for name in names(".png"):
        (root / "faces" / name).write_bytes((root / "faces" / "000001.jpg").read_bytes())
    (root / "faces" / "000005.jpg").unlink()
    table_of(root, plain_rows())
    assert "1 of 20 have none" in says(root, refused)
    for name in names(".png"):
        (root / "faces" / name).unlink()
    (root / "faces" / "5.jpg").write_bytes((root / "faces" / "000001.jpg").read_bytes())
    assert "1 of 20 have none" in says(root, refused)


def test_numbers_that_name_all_images_but_one_may_be_another_counting(
    root: Path, refused: Text
) -> None:
    table_of(root, [(str(n), s) for n, s in enumerate(SMILING)])
    assert "numbered differently" in says(root, refused, missing="drop")


def test_an_index_without_a_name_in_the_header_shifts_no_label(root: Path, refused: Text) -> None:
    """As pandas writes it with index_label=False, here with an empty last column."""
    rows = zip(range(COUNT), names(), SMILING, MALE, strict=True)
    put(root, ["filename,Smiling,Male,notes", *(f"{i},{n},{s},{m}," for i, n, s, m in rows)])
    for target in ("Smiling", "Male"):
        assert "all have one more" in says(root, refused, target)


def test_the_nearest_table_is_taken(root: Path) -> None:
    put(
        root,
        [str(COUNT), "Smiling", *(f"{n} {-s}" for n, s in plain_rows())],
        "list_attr_celeba.txt",
    )
    table_of(root / "faces", plain_rows())
    (root / "faces" / "faces.csv").rename(root / "faces" / "labels.csv")
    (root / "faces" / "._labels.csv").write_bytes(b"of another system")
    assert is_true(opened(root))


def test_a_table_in_each_part_is_refused_with_their_names(tmp_path: Path, refused: Text) -> None:
    for part in ("train", "valid", "test"):
        write_images(tmp_path / "faces" / part, [-1, 1] * 3, side=8)
        put(tmp_path / "faces" / part, ["filename,Smiling", "000001.jpg,1"], "_classes.csv")
    assert "train/_classes.csv" in says(tmp_path, refused)


@pytest.mark.parametrize(
    "parts", [("training_set", "test_set"), ("train", "eval"), ("Training", "val")]
)
def test_folders_of_parts_are_never_classes(tmp_path: Path, parts: tuple[str, ...]) -> None:
    root = class_folders(tmp_path, "cats", "dogs", parts=parts)
    assert set(opened(root, "cats").classes) == {"cats", "dogs"}


def test_folders_may_be_called_0_and_1_and_lie_in_another(tmp_path: Path) -> None:
    for place, name in enumerate(("0", "1")):
        write_images(tmp_path / "faces" / "pack" / name / "inner", [2 * place - 1] * 5, side=8)
    table = opened(tmp_path, "Smiling", positive="1")
    assert table.classes == ("0", "1") and table.rows["label"].sum() == 5


def test_what_systems_hide_is_no_class(tmp_path: Path) -> None:
    root = class_folders(tmp_path, "cat", "dog")
    for hidden in ("__MACOSX/cat", ".ipynb_checkpoints", "cat/.ipynb_checkpoints"):
        write_images(root / "faces" / hidden, [-1] * 3, side=8)
    (root / "faces" / "cat" / "._000001.jpg").write_bytes(b"of another system")
    table = opened(root, "cat")
    assert table.classes == ("dog", "cat") and len(table.rows) == 12


def test_folders_of_the_same_files_are_hardly_two_classes(tmp_path: Path, refused: Text) -> None:
    root = class_folders(tmp_path, "edges", "photos")
    assert "versions of one image" in says(root, refused)
    assert opened(root, positive="photos").classes == ("edges", "photos")


def test_an_image_beside_class_folders_is_named(tmp_path: Path, refused: Text) -> None:
    root = class_folders(tmp_path, "cat", "dog")
    write_images(root / "faces", [-1], side=8)
    assert "000001.jpg; move" in says(root, refused, "cat")


@pytest.mark.parametrize(
    ("values", "settings"),
    [
        (("Yes", "yes", "no"), {"positive": "yes"}),
        (("TRUE", "True"), {}),
        (("Male", "male", "Female"), {"positive": "male"}),
    ],
)
def test_one_word_in_two_spellings_is_refused(
    root: Path, refused: Text, values: tuple[str, ...], settings: dict[str, str]
) -> None:
    labelled(root, [values[n % len(values)] for n in range(COUNT)])
    assert "in one way" in says(root, refused, **settings)


def test_numbers_are_one_value_however_they_are_written(root: Path) -> None:
    labelled(
        root,
        ["1.0" if s == 1 and n % 2 else "1" if s == 1 else "odd" for n, s in enumerate(SMILING)],
    )
    assert is_true(opened(root, positive="1"))
    labelled(root, ["1" if s == 1 else "−1" for s in SMILING])
    assert is_true(opened(root))
    labelled(root, ["-9.0" if n == 4 else f"{s}.0" for n, s in enumerate(SMILING)])
    assert opened(root, missing_values=[-9], missing="drop").unlabelled == ("000005.jpg",)


def test_a_word_for_missing_that_no_row_has_is_refused(root: Path, refused: Text) -> None:
    labelled(root, ["n/a" if n == 4 else s for n, s in enumerate(SMILING)])
    said = says(root, refused, missing_values=["N/A"], positive="1")
    assert "no row has 'N/A'; it has 'n/a'" in said


def test_a_stray_quote_that_swallows_rows_is_refused(root: Path, refused: Text) -> None:
    rows = [f"{name},{s},said" for name, s in plain_rows()]
    rows[3] = f'000004.jpg,{SMILING[3]},"hello'
    rows[8] = f'000009.jpg,{SMILING[8]},bye"'
    put(root, ["filename,Smiling,caption", *rows])
    assert "stray quote" in says(root, refused)


def test_names_are_the_same_however_their_letters_are_composed(root: Path) -> None:
    import unicodedata

    for place, name in enumerate(names()):
        (root / "faces" / name).rename(
            root / "faces" / unicodedata.normalize("NFD", f"Jürgen{place}.jpg")
        )
    table_of(
        root, [(unicodedata.normalize("NFC", f"Jürgen{p}.jpg"), s) for p, s in enumerate(SMILING)]
    )
    assert opened(root).rows["label"].tolist() == [int(s == 1) for s in SMILING]


def test_a_folder_that_was_named_is_taken_before_its_thumbnails(root: Path) -> None:
    write_images(root / "faces" / "thumbs", SMILING, side=8)
    table_of(root, [(name.removesuffix(".jpg"), s) for name, s in plain_rows()])
    assert opened(root).images == root / "faces"


def test_images_spread_over_folders_are_found_by_their_bare_names(root: Path) -> None:
    for place, name in enumerate(names()):
        folder = root / "faces" / f"images_{place % 3:03d}" / "images"
        folder.mkdir(parents=True, exist_ok=True)
        (root / "faces" / name).rename(folder / name)
    table_of(root, plain_rows())
    assert is_true(opened(root))


def test_rows_without_a_file_name_are_counted_and_the_first_one_named(
    root: Path, refused: Text
) -> None:
    rows = lines()
    for row in (3, 7):
        rows[row] = rows[row].replace(f"{row:06d}.jpg", "")
    put(root, rows)
    assert "2 have none, row 3 first" in says(root, refused, file_column="filename")


def test_a_file_that_is_named_twice_is_refused_with_its_two_rows_however_it_is_written(
    root: Path, refused: Text
) -> None:
    """Which of two labels is its own can't be known; the first pair of rows is told, and how many more there are."""
    put(root, [*lines(), "21,./000004.jpg,1,1", "22,000002.jpg,1,1", "23,000002.jpg,-1,1"])
    assert "'./000004.jpg' is in rows 4 and 21 (repeated 3 times in total)" in says(root, refused)
    assert "rows 4 and 21" in says(root, refused, missing="drop"), "none of them is left out"


def test_where_the_labels_come_from_is_the_table_or_the_folder_of_the_classes(
    root: Path, tmp_path: Path
) -> None:
    path = put(root, lines())
    assert opened(root).source == path
    folders = class_folders(tmp_path / "classes", "cat", "dog")
    assert opened(folders, "cat").source == opened(folders, "cat").images


def test_attributes_are_found_by_the_name_of_the_file_in_the_column_that_is_said(
    root: Path, refused: Text
) -> None:
    """An index of bare numbers is no column of names; without a column that is known, the first of images is taken."""
    path = put(root, lines())
    for column in ("filename", None, "not there"):
        found = attributes_by_file(path, column)
        assert list(found.index) == names()
        assert list(found.columns) == ["id", "Smiling", "Male"]
        assert found["Smiling"].tolist() == SMILING
    by_number = attributes_by_file(path, "id")
    assert list(by_number.index) == [str(number) for number in range(1, COUNT + 1)]
    assert "filename" in by_number
    with pytest.raises(RequestError) as caught:
        attributes_by_file(put(root, ["id,Smiling", "1,1", "2,-1"], "other.csv"))
    assert "name it as data.file_column" in refused(caught)


def test_names_that_are_no_text_are_refused(tmp_path: Path, refused: Text) -> None:
    root = class_folders(tmp_path, "cat", "dog")
    (root / "faces" / "cat" / "000001.jpg").rename(
        root / "faces" / "cat" / os.fsdecode(b"M\xfc1.jpg")
    )
    assert "must be UTF-8" in says(root, refused, "cat")


def test_a_link_to_itself_and_a_folder_that_is_closed_stop_nothing(root: Path) -> None:
    (root / "faces" / "loop").symlink_to(root / "faces" / "loop")
    (root / "loop").symlink_to(root / "loop")
    table_of(root, plain_rows())
    assert is_true(opened(root))


def test_a_zip_that_can_not_be_extracted_leaves_nothing(root: Path, refused: Text) -> None:
    archive = write_zip(root / "faces", root / "pack.zip")
    content = bytearray(archive.read_bytes())
    content[60] ^= 255
    archive.write_bytes(content)
    table_of(root, plain_rows())
    before = set(root.iterdir())
    with pytest.raises(RequestError):
        open_table(DataConfig(images=archive, target="Smiling"))
    assert set(root.iterdir()) == before


def test_identities_are_never_joined_by_number(tmp_path: Path, refused: Text) -> None:
    root = png_faces(tmp_path)
    lines = [f"{n}.jpg {n}" for n in range(COUNT)]
    put(root, lines, "identity_CelebA.txt")
    assert "lacks 20 of 20" in says(root, refused)


def test_the_column_of_file_names_is_no_target(root: Path, refused: Text) -> None:
    table_of(root, plain_rows())
    assert "holds the file names" in says(root, refused, "filename", positive="000001.jpg")


def test_a_group_of_a_word_that_may_mean_nothing_is_refused(root: Path, refused: Text) -> None:
    rows = zip(names(), SMILING, strict=True)
    put(
        root,
        [
            "filename,Smiling,who",
            *(f"{n},{s},{'NA' if i % 2 else i}" for i, (n, s) in enumerate(rows)),
        ],
    )
    with pytest.raises(RequestError) as caught:
        make_split(opened(root), SplitConfig(group="who"))
    assert "'NA'" in refused(caught)


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"\x1f\x8b\x08\x00", "gzip"), (b"filename|Smiling\na.jpg|1\n", "sep=|")],
)
def test_what_to_do_is_said_where_another_file_is_needed(
    root: Path, refused: Text, content: bytes, told: str
) -> None:
    (root / "faces.csv").write_bytes(content)
    assert told in says(root, refused)
