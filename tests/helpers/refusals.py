"""Mistakes of a user."""

import pytest

from d2nwg.utils.errors import UserError


def refusal(function, *args, **kwargs) -> str:
    """The one sentence of a refusal."""
    with pytest.raises(UserError) as caught:
        function(*args, **kwargs)
    text = str(caught.value)
    assert text and "\n" not in text and "Error" not in text and text.endswith(".") and "Traceback" not in text
    text.encode()  # printable anywhere
    return text
