"""What the solving half says of rows that it cannot solve, and of itself."""

import numpy as np
import pandas as pd
import pytest
from sklearn.utils import get_tags


def test_a_flow_that_leaves_the_numbers_is_no_answer(small, data, monkeypatch):
    model = small().fit(data.X_train, data.y_train, data.class_embeddings)
    field = type(model.velocity_field_)
    monkeypatch.setattr(field, "velocity", lambda self, t, z: 1e30 * z)
    for method in (model.predict, model.predict_proba, model.transform, model.trajectory):
        with pytest.raises(ValueError, match=r"left the range of torch.float32 before n_steps=5"):
            method(data.X_test.astype(np.float32))


@pytest.mark.parametrize("form", [np.asarray, pd.DataFrame])
def test_new_rows_are_named_in_messages(form, small, data):
    X = form(data.X_train)
    model = small().fit(X, data.y_train, data.class_embeddings)
    rows = data.X_test.copy()
    rows[3, 0] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        model.predict(form(rows))


def test_it_keeps_both_precisions(small):
    assert get_tags(small()).transformer_tags.preserves_dtype == ["float64", "float32"]
