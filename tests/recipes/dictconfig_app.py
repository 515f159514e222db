"""`logging` set up by ``dictConfig`` from a YAML file, with the handler on the root logger."""

from __future__ import annotations

import logging.config

from pathlib import Path

import yaml


with Path(__file__).with_name("dictconfig.yaml").open() as file:
    logging.config.dictConfig(yaml.safe_load(file))

log = logging.getLogger("cinema.player")

if __name__ == "__main__":
    log.info("starting")
    log.info("movie played", extra={"distinct_id": "user-1", "who": "1"})
