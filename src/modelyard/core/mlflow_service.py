"""What all exporters to MLflow share: its refusals as errors of ours, and URIs without passwords."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from modelyard.core.errors import ModelyardError


@contextmanager
def refusals(uri: str | None, what: str, error_type: type[ModelyardError]) -> Iterator[None]:
    """What MLflow refuses, as an error of ours.

    Args:
        uri: Where it is; None where it finds that itself.
        what: What is written there, such as "the study".
        error_type: Of the error.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        told = str(error).replace(uri, without_password(uri)) if uri else str(error)
        raise error_type(
            f"{without_password(uri or 'MLflow')}: {what} cannot be written there ({told}); "
            "start the server, or give another --tracking-uri"
        ) from error


def without_password(uri: str) -> str:
    """A URI as it may be shown."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", uri)


def cut(text: str, most: int) -> str:
    """A text that fits into a field of MLflow's."""
    return text if len(text) <= most else text[: most - 3] + "..."
