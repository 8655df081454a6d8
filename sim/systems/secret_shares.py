"""Two parties that compute on additive secret shares, and the channel that counts what they say.

A number ``x`` of the ring of integers modulo 2^64 is ``client + server``; a bit, or a word of bits,
is ``client ^ server``. Each share alone is uniform. Either party computes on its own shares; what
it needs of the other goes through :class:`Channel` as bytes, and one exchange of messages that do
not wait for one another is one round.

Both are honest but curious. Correlated randomness (Beaver triples, random transfers, random bits)
is dealt by a dealer, who is counted by the oblivious transfers (OT) that the parties would make the
same of without one: two for an AND of bits, 2 x 64 for a product (Gilboa's method), one for a
random bit in both kinds of shares, log2(n) for one out of n.

References
----------
Beaver, CRYPTO 1991 (triples); Beaver, CRYPTO 1995 (derandomised OT); Gilboa, CRYPTO 1999; Rotaru
and Wood, INDOCRYPT 2019 (bits in both kinds of shares).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FRACTION_BITS", "Channel", "Shares", "Traffic", "TwoParties", "to_ring"]

Words = npt.NDArray[Any]

#: Fraction bits of a probability: products of two of them, and a sign, fit the ring.
FRACTION_BITS = 28
_RING_BITS = 64
_MSB = np.uint64(_RING_BITS - 1)


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What a protocol took.

    Parameters
    ----------
    rounds : int
        Exchanges one behind the other.
    bytes_to_client, bytes_to_server : int
        Sent.
    transfers : int
        Oblivious transfers of bits or words that the correlated randomness stands for.
    """

    rounds: int = 0
    bytes_to_client: int = 0
    bytes_to_server: int = 0
    transfers: int = 0

    @property
    def size_bytes(self) -> int:
        """Sent in both directions."""
        return self.bytes_to_client + self.bytes_to_server

    def __sub__(self, other: "Traffic") -> "Traffic":
        return Traffic(rounds=self.rounds - other.rounds,
                       bytes_to_client=self.bytes_to_client - other.bytes_to_client,
                       bytes_to_server=self.bytes_to_server - other.bytes_to_server,
                       transfers=self.transfers - other.transfers)


class Channel:
    """Between the two parties: all that one learns of the other comes through here.

    Parameters
    ----------
    keep : bool
        Whether to keep what each party received, as bytes, in :attr:`to_client` and
        :attr:`to_server`.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self.traffic = Traffic()
        self.to_client: list[bytes] = []
        self.to_server: list[bytes] = []
        self._keep = keep

    def swap(self, from_client: tuple[Words, ...], from_server: tuple[Words, ...]
             ) -> tuple[tuple[Words, ...], tuple[Words, ...]]:
        """One round: what the client receives, and what the server does.

        Parameters
        ----------
        from_client, from_server : tuple of numpy.ndarray
            Unsigned words, sent as their bytes; bool arrays are sent as packed bits.
        """
        up, down = (b"".join(map(_pack, words)) for words in (from_client, from_server))
        self.traffic = replace(
            self.traffic, rounds=self.traffic.rounds + 1,
            bytes_to_client=self.traffic.bytes_to_client + len(down),
            bytes_to_server=self.traffic.bytes_to_server + len(up))
        if self._keep:
            self.to_client.append(down)
            self.to_server.append(up)
        return _unpack(down, from_server), _unpack(up, from_client)


def _pack(words: Words) -> bytes:
    return (np.packbits(words) if words.dtype == bool else words).tobytes()


def _unpack(message: bytes, like: tuple[Words, ...]) -> tuple[Words, ...]:
    """Arrays of the bytes; both sides know shapes and kinds."""
    arrays, start = [], 0
    for words in like:
        size = -(-words.size // 8) if words.dtype == bool else words.nbytes
        part = np.frombuffer(message, np.uint8, size, start)
        start += size
        arrays.append(np.unpackbits(part, count=words.size).astype(bool).reshape(words.shape)
                      if words.dtype == bool else part.view(words.dtype).reshape(words.shape))
    return tuple(arrays)


@dataclass(frozen=True)
class Shares:
    """Both shares of an array: of a sum modulo 2^64, or of an exclusive or.

    What is said of a party reads that party's share alone.
    """

    client: Words
    server: Words

    def __add__(self, other: "Shares") -> "Shares":
        return Shares(self.client + other.client, self.server + other.server)

    def __sub__(self, other: "Shares") -> "Shares":
        return Shares(self.client - other.client, self.server - other.server)

    def __xor__(self, other: "Shares") -> "Shares":
        return Shares(self.client ^ other.client, self.server ^ other.server)

    def __invert__(self) -> "Shares":
        """The complement of shared bits: one party flips its own."""
        return Shares(~self.client, self.server)

    def __getitem__(self, index) -> "Shares":
        return Shares(self.client[index], self.server[index])

    def times(self, factor: int) -> "Shares":
        """A sum times a number that both know."""
        word = np.uint64(factor % (1 << _RING_BITS))
        return Shares(self.client * word, self.server * word)

    def plus(self, number: Words) -> "Shares":
        """A sum plus what the client knows."""
        return Shares(self.client + number, self.server)

    def cumulative(self) -> "Shares":
        """Running sums along the last axis."""
        return Shares(*(np.cumsum(each, axis=-1, dtype=np.uint64)
                        for each in (self.client, self.server)))

    def total(self) -> "Shares":
        """Sums over the last axis, which stays."""
        return Shares(*(each.sum(axis=-1, dtype=np.uint64, keepdims=True)
                        for each in (self.client, self.server)))


def to_ring(values: npt.ArrayLike, fraction_bits: int = FRACTION_BITS) -> npt.NDArray[np.uint64]:
    """Numbers in fixed point, rounded half to even; negative ones wrap.

    Parameters
    ----------
    values : array_like
        Of less than 2^(63 - `fraction_bits`) in magnitude.
    fraction_bits : int
        Position of the point.

    Raises
    ------
    ValueError
        If a value is too large or no number.
    """
    scaled = np.rint(np.asarray(values, np.float64) * 2.0**fraction_bits)
    if not (np.abs(scaled) < 2.0**63).all():
        raise ValueError(f"Values must be below 2^{63 - fraction_bits} in magnitude")
    return scaled.astype(np.int64).view(np.uint64)


def _even_bits(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Bits 0, 2, 4 and so on of each word, side by side at its low end."""
    words = words & np.uint64(0x5555555555555555)
    for shift, mask in ((1, 0x3333333333333333), (2, 0x0F0F0F0F0F0F0F0F), (4, 0x00FF00FF00FF00FF),
                        (8, 0x0000FFFF0000FFFF), (16, 0x00000000FFFFFFFF)):
        words = (words | (words >> np.uint64(shift))) & np.uint64(mask)
    return words


class TwoParties:
    """A client and a server on a channel, with a dealer.

    Parameters
    ----------
    channel : Channel
        Where they talk.
    seed : int
        Of all randomness: the dealer's and the parties' masks.
    """

    def __init__(self, channel: Channel, seed: int) -> None:
        self.channel = channel
        self._rng = np.random.default_rng(seed)

    # The dealer.

    def _uniform(self, shape: tuple[int, ...], kind: npt.DTypeLike = np.uint64) -> Words:
        dtype = np.dtype(kind)
        if dtype.kind == "b":
            return self._rng.integers(0, 2, shape, np.uint8).astype(bool)
        return self._rng.integers(0, 256**dtype.itemsize - 1, shape, dtype, endpoint=True)

    def _dealt_sum(self, secret: Words) -> Shares:
        client = self._uniform(secret.shape)
        return Shares(client, secret - client)

    def _dealt_bits(self, secret: Words) -> Shares:
        client = self._uniform(secret.shape, secret.dtype)
        return Shares(client, secret ^ client)

    def _made_of(self, transfers: int) -> None:
        traffic = self.channel.traffic
        self.channel.traffic = replace(traffic, transfers=traffic.transfers + transfers)

    def random(self, shape: tuple[int, ...], bits: int = FRACTION_BITS) -> Shares:
        """A uniform number of so many bits, which neither knows."""
        secret = self._uniform(shape) >> np.uint64(_RING_BITS - bits)
        # Random bits in both kinds of shares, summed.
        self._made_of(bits * secret.size)
        return self._dealt_sum(secret)

    # The parties.

    def share(self, secret: Words) -> Shares:
        """What a third one (or a protocol before) shares between the two: nothing is sent."""
        return self._dealt_sum(np.asarray(secret, np.uint64))

    def of_client(self, secret: Words) -> Shares:
        """A number that the client knows, as a sum: the server's share is nought."""
        return Shares(secret, np.zeros_like(secret))

    def open_sum(self, shares: Shares) -> npt.NDArray[np.uint64]:
        """The number, to both. One round."""
        (theirs,), _ = self.channel.swap((shares.client,), (shares.server,))
        return shares.client + theirs

    def open_sum_to_client(self, shares: Shares) -> npt.NDArray[np.uint64]:
        """The number, to the client alone. One round."""
        (theirs,), _ = self.channel.swap((), (shares.server,))
        return shares.client + theirs

    def open_bits(self, shares: Shares) -> npt.NDArray[np.bool_]:
        """The bits, to both. One round."""
        (theirs,), _ = self.channel.swap((shares.client,), (shares.server,))
        return shares.client ^ theirs

    def open_bits_to_client(self, shares: Shares) -> npt.NDArray[np.bool_]:
        """The bits, to the client alone. One round."""
        (theirs,), _ = self.channel.swap((), (shares.server,))
        return shares.client ^ theirs

    def multiply(self, x: Shares, y: Shares) -> Shares:
        """The product, element by element. One round, 16 bytes each way."""
        shape = np.broadcast_shapes(x.client.shape, y.client.shape)
        a, b = self._uniform(shape), self._uniform(shape)
        left, right, product = self._dealt_sum(a), self._dealt_sum(b), self._dealt_sum(a * b)
        self._made_of(2 * _RING_BITS * a.size)
        d, e = x - left, y - right
        got, _ = self.channel.swap((d.client, e.client), (d.server, e.server))
        # Both know these now.
        opened_d, opened_e = d.client + got[0], e.client + got[1]
        return Shares(
            product.client + opened_d * right.client + opened_e * left.client + opened_d * opened_e,
            product.server + opened_d * right.server + opened_e * left.server)

    def both_and(self, x: Shares, y: tuple[Shares, ...], bits: int) -> tuple[Shares, ...]:
        """``x & each`` for words of one kind that share their left side. One round.

        Parameters
        ----------
        x, y : Shares
            Of bits, in words of one unsigned type or bool.
        bits : int
            Of a word that are in use, for what the dealer is counted by.
        """
        kind, shape = x.client.dtype, x.client.shape
        a = self._uniform(shape, kind)
        left = self._dealt_bits(a)
        b = [self._uniform(shape, kind) for _ in y]
        right = [self._dealt_bits(each) for each in b]
        product = [self._dealt_bits(a & each) for each in b]
        self._made_of(2 * bits * a.size * len(y))
        d, e = x ^ left, [each ^ mask for each, mask in zip(y, right, strict=True)]
        got, _ = self.channel.swap((d.client, *(each.client for each in e)),
                                   (d.server, *(each.server for each in e)))
        opened = d.client ^ got[0]
        results = []
        for each, theirs, r, c in zip(e, got[1:], right, product, strict=True):
            other = each.client ^ theirs
            results.append(Shares(
                c.client ^ (opened & r.client) ^ (other & left.client) ^ (opened & other),
                c.server ^ (opened & r.server) ^ (other & left.server)))
        return tuple(results)

    def negative(self, x: Shares) -> Shares:
        """Whether each number is negative, as bits: a carry by a tree. Seven rounds."""
        client, server = x.client, x.server
        nought = np.zeros_like(client)
        # Each party's own share, as bits that it shares with the other.
        mine, theirs = Shares(client, nought), Shares(nought, server)
        (carry,) = self.both_and(mine, (theirs,), _RING_BITS)
        alive = mine ^ theirs
        top = Shares((client >> _MSB).astype(bool), (server >> _MSB).astype(bool))
        # The carry into the top bit: bits 0 to 62. Bit 63 moves out, and a bit that neither makes
        # nor passes a carry would be wrong below, so one that passes comes in.
        carry = Shares(carry.client << np.uint64(1), carry.server << np.uint64(1))
        alive = Shares((alive.client << np.uint64(1)) | np.uint64(1), alive.server << np.uint64(1))
        kinds = {32: np.uint32, 16: np.uint16, 8: np.uint8, 4: np.uint8, 2: np.uint8, 1: bool}
        for width, kind in kinds.items():
            # What a word holds above the bits in use is random in either share.
            used = np.uint64((1 << width) - 1)

            def halves(shares: Shares, shift: int, kind=kind, used=used) -> Shares:
                return Shares(*(
                    (_even_bits(each.astype(np.uint64) >> np.uint64(shift)) & used).astype(kind)
                    for each in (shares.client, shares.server)))
            high, low = halves(alive, 1), halves(carry, 0)
            wanted = (low,) if width == 1 else (low, halves(alive, 0))
            made = self.both_and(high, wanted, width)
            carry = halves(carry, 1) ^ made[0]
            alive = made[-1]
        return top ^ carry

    def truncate(self, x: Shares, bits: int) -> Shares:
        """``x / 2**bits``, to within one, for `x` in [-2^62, 2^62). Two rounds.

        A number below 2^63 wraps around the ring if and only if the top bit of either share is
        set: one AND, as in Cheetah's truncation with a known sign (Huang et al., USENIX Security
        2022).
        """
        shift, offset = np.uint64(bits), np.uint64(1 << 62)
        client, server = x.client + offset, x.server
        no = np.zeros(client.shape, bool)
        (neither,) = self.both_and(Shares(~(client >> _MSB).astype(bool), no),
                                   (Shares(no, ~(server >> _MSB).astype(bool)),), 1)
        wraps = self.to_sum(~neither).times(1 << (_RING_BITS - bits))
        return Shares((client >> shift) - wraps.client - (offset >> shift),
                      (server >> shift) - wraps.server)

    def prefix_or(self, bits: Shares) -> Shares:
        """Whether any bit up to each place along the last axis is set. log2(length) rounds."""
        length, step = bits.client.shape[-1], 1
        while step < length:
            # Or is the complement of the and of the complements.
            (both,) = self.both_and(~bits[..., step:], (~bits[..., :-step],), 1)
            later = ~both
            bits = Shares(*(np.concatenate([first[..., :step], rest], axis=-1) for first, rest in (
                (bits.client, later.client), (bits.server, later.server))))
            step *= 2
        return bits

    def to_sum(self, bits: Shares) -> Shares:
        """Bits as numbers 0 and 1. One round."""
        secret = self._uniform(bits.client.shape, bool)
        as_bits, as_sum = self._dealt_bits(secret), self._dealt_sum(secret.astype(np.uint64))
        self._made_of(secret.size)
        opened = self.open_bits(bits ^ as_bits).astype(np.uint64)
        # b = o ^ r = o + r - 2 o r
        factor = np.uint64(1) - np.uint64(2) * opened
        return Shares(opened + factor * as_sum.client, factor * as_sum.server)

    def pick(self, rows: Shares, index: npt.NDArray[np.int64]) -> Shares:
        """The element of each row that the client's index names; the server does not learn which.

        One-out-of-n oblivious transfer of the server's shares, masked anew: two rounds.

        Parameters
        ----------
        rows : Shares
            Of sums, of shape [..., n].
        index : numpy.ndarray
            Of shape [...], known to the client.
        """
        n = rows.client.shape[-1]
        index = np.asarray(index, np.int64)[..., None]
        # Dealt: a pad for each element to the server, one of them with its place to the client.
        pads = self._uniform(rows.server.shape)
        place = self._rng.integers(0, n, index.shape)
        known = np.take_along_axis(pads, place, -1)
        self._made_of(max(1, (n - 1).bit_length()) * index.size)
        _, (shift,) = self.channel.swap((((index - place) % n).astype(np.uint32),), ())
        mask = self._uniform(index.shape)
        rotated = np.take_along_axis(pads, (np.arange(n) - shift.astype(np.int64)) % n, -1)
        (sent,), _ = self.channel.swap((), (rows.server - mask + rotated,))
        own = np.take_along_axis(rows.client, index, -1)
        received = np.take_along_axis(sent, index, -1) - known
        return Shares(own + received, mask)[..., 0]
