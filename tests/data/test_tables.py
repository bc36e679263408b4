"""Tables with gaps and text as numbers."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder

from hybridclf.data.tables import TableEncoder, is_numeric

TABLE = pd.DataFrame(
    {
        "age": [3.0, np.nan, 1.0, 8.0],
        "n": pd.array([1, 2, None, 4], dtype="Int64"),
        "kind": ["cat", "dog", None, "cat"],
        "seen": [True, False, True, True],
    }
)


def test_numbers_are_scikit_learns() -> None:
    made = TableEncoder().fit(TABLE).transform(TABLE)
    age = SimpleImputer(strategy="median").fit_transform(TABLE[["age"]])
    encoder = OneHotEncoder(sparse_output=False, handle_unknown="ignore").fit(TABLE[["kind"]].dropna())
    kind = encoder.transform(TABLE[["kind"]])
    np.testing.assert_array_equal(made[:, :1], age)
    np.testing.assert_array_equal(made[:, 1], [1, 2, 2, 4])
    np.testing.assert_array_equal(made[:, 2:-1], kind)
    np.testing.assert_array_equal(made[:, -1], [1, 0, 1, 1])


def test_values_that_were_not_seen_are_none_of_the_known() -> None:
    encoder = TableEncoder().fit(TABLE)
    other = TABLE.assign(kind="fox", age="old")
    made = encoder.transform(other)
    assert not made[:, 2:-1].any()
    assert (made[:, 0] == 3.0).all()  # the median, as of a gap


@pytest.mark.parametrize("gap", [None, np.nan, pd.NA, pd.NaT])
def test_a_gap_in_text_is_no_value(gap: Any) -> None:
    encoder = TableEncoder().fit(pd.DataFrame({"kind": pd.Series(["cat", gap, "dog", "None"], dtype=object)}))
    assert encoder.columns == [["None", "cat", "dog"]]
    asked = pd.Series(["dog", None, np.nan, pd.NA, pd.NaT, "None"], dtype=object)
    made = encoder.transform(pd.DataFrame({"kind": asked}))
    np.testing.assert_array_equal(made, np.array([[0, 0, 1], *[[0, 0, 0]] * 4, [1, 0, 0]]))


@pytest.mark.parametrize("gap", [None, np.nan, pd.NA])
def test_numbers_as_objects_are_numbers(gap: Any) -> None:
    table = pd.DataFrame({"n": pd.Series([1, gap, 4.0, True], dtype=object)})
    assert is_numeric(table)
    np.testing.assert_array_equal(TableEncoder().fit(table).transform(table), [[1.0], [1.0], [4.0], [1.0]])


def test_numbers_among_text_are_the_same_as_floats() -> None:
    encoder = TableEncoder().fit(pd.DataFrame({"size": pd.Series([1, 2, "L", 2.5], dtype=object)}))
    assert encoder.columns == [["1", "2", "2.5", "L"]]
    made = encoder.transform(pd.DataFrame({"size": [1.0, 2.0, 2.5, 3.0]}))
    np.testing.assert_array_equal(made, np.eye(4)[[0, 1, 2, 3]] * [[1], [1], [1], [0]])


def test_arrays_with_gaps() -> None:
    X = np.array([[1.0, np.nan], [3.0, 4.0], [np.nan, 6.0], [5.0, np.nan]])
    np.testing.assert_array_equal(TableEncoder().fit(X).transform(X), SimpleImputer(strategy="median").fit_transform(X))


def test_what_was_learned_is_plain() -> None:
    encoder = TableEncoder().fit(TABLE)
    again = TableEncoder(encoder.columns)
    np.testing.assert_array_equal(again.transform(TABLE), encoder.transform(TABLE))
    assert all(isinstance(column, float | list) for column in encoder.columns)


@pytest.mark.parametrize(
    ("table", "expected"), [(TABLE, False), (TABLE[["age", "n", "seen"]], True), (np.eye(2), True)]
)
def test_is_numeric(table: object, expected: bool) -> None:
    assert is_numeric(table) is expected
