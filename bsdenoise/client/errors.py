"""What can go wrong between a client and a server: one class for each thing that a caller would do about it."""


class ClientError(OSError):
    """A request that was not answered as hoped. The message names the address with the model, and what was said."""


class RefusedError(ClientError, ValueError):
    """The model or its server refuses the request: sending it again would not help."""


class NotFoundError(ClientError, LookupError):
    """The server knows no such model, version or label."""


class UnavailableError(ClientError, ConnectionError):
    """The server cannot be reached, broke the connection, or has too much to do: later it may work."""


class DeadlineError(ClientError, TimeoutError):
    """The time for the request has passed."""
