"""The runner with a model of the answer, started again every second, as a scheduler does, until no row waits."""

from __future__ import annotations

import time

import polars
from llm_batch_py import (
    AnthropicConfig,
    BatchConfig,
    LockConfig,
    ResultCacheStoreConfig,
    Runner,
    StructuredOutputJob,
    structured_template,
)
from pydantic import BaseModel
from report import MODEL, QUESTIONS, Report, describe, run


class Label(BaseModel):
    label: str


def main(report: Report) -> None:
    job = StructuredOutputJob(
        name="labels",
        key_cols=["id"],
        input_df=polars.DataFrame({"id": list(QUESTIONS), "question": list(QUESTIONS.values())}),
        prompt_builder=structured_template(
            system="Return JSON only.", messages="{{ row.question }}", name="build_prompt", version="v1"
        ),
        output_model=Label,
        provider=AnthropicConfig(model=MODEL),
        result_cache=ResultCacheStoreConfig(root_uri="./cache"),
        lock=LockConfig(ttl_seconds=3600),
        batch=BatchConfig(batch_size=500),
    )
    while True:
        try:
            frame = Runner().run(job)
        except Exception as error:  # noqa: BLE001
            report.raised.append(describe(error))
        else:
            states = frame["llm_batch_py_status"].to_list()
            print(states)
            if all(state in ("completed", "cached", "failed") for state in states):
                break
        time.sleep(1)
    for row in frame.to_dicts():
        if row["llm_batch_py_status"] != "failed":
            report.answers[row["id"]] = row["label"]
        else:
            report.raised.append(f"{row['llm_batch_py_error_code']}: {row['llm_batch_py_error_raw_json']}")


run(main)
