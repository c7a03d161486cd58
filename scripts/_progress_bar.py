"""How far an evaluation has come."""

from tqdm import tqdm


class ProgressBar:
    """A bar over problems; on a terminal only."""

    def __init__(self, problems: int, *, quiet: bool):
        disable = True if quiet else None
        self._bar = tqdm(total=problems, unit="problem", disable=disable, leave=False)

    def show(self, done: int) -> None:
        """Moves the bar to the number of problems done."""
        self._bar.n = done
        self._bar.refresh()

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_):
        self._bar.close()
