"""`procpre-interp train`: a fresh model on one task."""

from procpre_interp.commands._options import parse
from procpre_interp.commands._run_one import Training, as_default, defaults, run_one, trained_on
from procpre_interp.commands._text_defaults import given_options, say, with_training_defaults
from procpre_interp.pipeline.config import RunConfig


def main(arguments: list[str]) -> int:
    """Train, and print what came out. A diverged run is a result: its exit code is 0."""
    fields, arguments = defaults(arguments, "train")
    if fields.get("parents"):
        raise ValueError("this config has parents: use `procpre-interp transfer --config FILE`")
    given = given_options(arguments, fields, "train")
    command = parse(Training, "train", arguments, as_default(Training, fields))
    train = with_training_defaults(trained_on(command), command.task, command.model, given=given)
    say(train, command.train, is_transfer=False)
    config = RunConfig(task=command.task, seed=command.seed, model=command.model, train=train)
    run_one(config, command.store)
    return 0
