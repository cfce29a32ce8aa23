"""One of several training processes, as torchrun starts them: ``python -m scripts.finetune.worker CALL.json``."""

import logging
import sys

from scripts.common.encoder import pick_device
from scripts.common.errors import UserError
from scripts.common.files import read_json, write_json
from scripts.common.job import log, log_to
from scripts.finetune.finetune import finetune
from scripts.finetune.world import World


def main(call_file: str) -> None:
    """Train with the arguments of a call file; the first process writes the result, or why there is none."""
    call = read_json(call_file)
    world = World.join(pick_device(call["arguments"]["device"]))
    with log_to(None, "finetune", "INFO" if world.first else logging.getLevelName(logging.ERROR)):
        try:
            result = finetune(**call["arguments"], world=world)
        except UserError as error:
            if world.first:
                write_json(call["failure"], str(error))
            raise
        if world.first:
            write_json(call["result"], result)
        log.debug("process %d of %d is done", world.rank, world.size)
    world.leave()


if __name__ == "__main__":
    main(sys.argv[1])
