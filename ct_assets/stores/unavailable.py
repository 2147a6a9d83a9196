"""What an online store raises when it cannot answer; apart from the stores, as importing those imports Feast."""


class OnlineStoreUnavailable(OSError):
    """The online store is gone or cannot be read. Nothing may be answered from it until it is back."""
