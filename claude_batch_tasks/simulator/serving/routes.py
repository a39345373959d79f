"""The endpoints by path and method, each with the preparation of its work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from ..script import Endpoint
from .batches import (
    cancel_batch,
    create_batch,
    delete_batch,
    list_batches,
    prepare_batch,
    retrieve_batch,
    send_results,
)
from .catalog import list_models, retrieve_model
from .effects import Work
from .messages import count_tokens, send_message
from .received import Received
from .uploads import delete_file, download_file, list_files, retrieve_file, upload_file

#: Reads a call, as far as this changes nothing; raises ApiError where it is refused at once.
Prepare: TypeAlias = Callable[[Received], Awaitable[Work]]

ONE_BATCH, ONE_FILE = "/v1/messages/batches/{batch_id}", "/v1/files/{file_id}"
ROUTES: dict[str, dict[str, tuple[Endpoint, Prepare]]] = {
    "/v1/messages/batches": {"POST": ("create", create_batch), "GET": ("list", list_batches)},
    ONE_BATCH: {
        "GET": ("retrieve", prepare_batch(retrieve_batch)),
        "DELETE": ("delete", prepare_batch(delete_batch)),
    },
    f"{ONE_BATCH}/cancel": {"POST": ("cancel", prepare_batch(cancel_batch))},
    f"{ONE_BATCH}/results": {"GET": ("results", prepare_batch(send_results))},
    "/v1/messages": {"POST": ("messages", send_message)},
    "/v1/messages/count_tokens": {"POST": ("count_tokens", count_tokens)},
    "/v1/models": {"GET": ("models", list_models)},
    "/v1/models/{model_id}": {"GET": ("models", retrieve_model)},
    "/v1/files": {"POST": ("files", upload_file), "GET": ("files", list_files)},
    ONE_FILE: {"GET": ("files", retrieve_file), "DELETE": ("files", delete_file)},
    f"{ONE_FILE}/content": {"GET": ("files", download_file)},
}
