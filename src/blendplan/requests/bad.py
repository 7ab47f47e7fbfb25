"""`BadRecordError`: what is wrong with one line or row."""


class BadRecordError(Exception):
    """What is wrong with one line or row, and what would be right; the reader adds where."""


def utf8(text: str, what: str) -> bytes:
    """Encode `text`.

    Raises:
        BadRecordError: it holds half a surrogate pair, which no UTF-8 text can.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRecordError(
            f"{what} holds half a surrogate pair (\\u{ord(text[error.start]):04x}); "
            "write the whole character"
        ) from error
