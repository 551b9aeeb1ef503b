"""Looking at the headers of many images at once, with a progress bar."""

import concurrent.futures
import warnings
from collections.abc import Callable

import numpy as np
from tqdm import tqdm

THREADS = 8  # reading headers mostly waits for the disk
PART = 100  # images that a thread looks at in one go: a future for each of a million would take gigabytes
MANY_IMAGES = 2000  # headers of which take long enough to say so where there is no progress bar
BAR_DELAY = 1.0  # seconds before a progress bar shows


def in_threads(function: Callable[[int], None], numbers: np.ndarray, what: str, unit: str) -> dict[int, Exception]:
    """Call a function for each of some numbers, in no particular order.

    Args:
        function: Looks at the image of a number. It may raise ValueError or OSError.
        numbers: The numbers, (N,).
        what: What is done, such as "reading the sizes of".
        unit: To what, such as "images".

    Returns:
        The errors, by number.
    """
    failures: dict[int, Exception] = {}
    if not len(numbers):
        return failures
    progress = tqdm(
        total=len(numbers),
        desc=what.split()[0],
        unit=unit.removesuffix("s"),
        delay=BAR_DELAY,
        disable=None,
        leave=False,
    )
    if progress.disable and len(numbers) >= MANY_IMAGES:
        tqdm.write(f"{what} {len(numbers)} {unit} …")
    parts = np.array_split(numbers, -(-len(numbers) // PART))

    def look(part: np.ndarray) -> int:
        for number in part.tolist():
            try:
                function(number)
            except (ValueError, OSError) as error:
                failures[number] = error
        return len(part)

    pool = concurrent.futures.ThreadPoolExecutor(THREADS)
    try:
        # Pillow warns of odd headers; around all threads, as the filters belong to the whole process.
        with progress, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number in pool.map(look, parts):
                progress.update(number)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C must not wait for the rest
    return failures
