"""What a sequence of each task must be, in plain loops over one list of ids. Shares no code with the library.

An oracle reads the input off the sequence, asserts the rules that it must keep, and works out the rest. It
returns the whole sequence and the first scored position (every later one is scored too, but for the last). The weights
of random networks are taken as given.
"""

import math

from procpre_interp.data.procedural.linear_rnn import linear_network
from procpre_interp.data.procedural.neural_automaton import update_network

Answer = tuple[list[int], int]


def split_at(tokens: list[int], separator: int) -> list[list[int]]:
    """The stretches of `tokens` that separators divide."""
    parts: list[list[int]] = [[]]
    for token in tokens:
        if token == separator:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def symbols(part: list[int], first: int, vocab: int) -> list[int]:
    for token in part:
        assert first <= token < vocab
    return part


def identity(tokens: list[int], vocab: int = 100) -> Answer:
    x = symbols(split_at(tokens, vocab)[0], 1, vocab)
    return [*x, vocab, *x], len(x)


def reverse(tokens: list[int], vocab: int = 100) -> Answer:
    x = symbols(split_at(tokens, vocab)[0], 1, vocab)
    backwards: list[int] = []
    for token in x:
        backwards.insert(0, token)
    return [*x, vocab, *backwards], len(x)


def ww(tokens: list[int], vocab: int = 100) -> Answer:
    assert len(tokens) % 2 == 0
    x = symbols(tokens[: len(tokens) // 2], 1, vocab)
    return [*x, *x], len(x) - 1


def insertion_sort(x: list[int]) -> list[int]:
    ascending: list[int] = []
    for token in x:
        place = 0
        while place < len(ascending) and ascending[place] <= token:
            place += 1
        ascending.insert(place, token)
    return ascending


def sort(tokens: list[int], vocab: int = 100) -> Answer:
    x = symbols(split_at(tokens, vocab)[0], 1, vocab)
    return [*x, vocab, *insertion_sort(x)], len(x)


def sorting(tokens: list[int], vocab: int = 100) -> Answer:
    x = symbols(split_at(tokens, vocab)[0], 0, vocab)
    return [*x, vocab, *insertion_sort(x)], len(x)


def without_repeats(x: list[int]) -> list[int]:
    kept: list[int] = []
    for token in x:
        if token not in kept:
            kept.append(token)
    return kept


def set_(tokens: list[int], vocab: int = 100) -> Answer:
    x = symbols(split_at(tokens, vocab)[0], 1, vocab)
    return [*x, vocab, *without_repeats(x)], len(x)


def union(tokens: list[int], vocab: int = 100) -> Answer:
    a, b, _ = split_at(tokens, vocab)
    symbols(a + b, 1, vocab)
    assert len(a) == len(b)
    return [*a, vocab, *b, vocab, *without_repeats(a + b)], len(a) + len(b) + 1


def delete(tokens: list[int], vocab: int = 100) -> Answer:
    x, (target,), _ = split_at(tokens, vocab)
    symbols(x, 1, vocab)
    assert target in x
    rest = list(x)
    rest.remove(target)
    return [*x, vocab, target, vocab, *rest], len(x) + 2


def stored(tokens: list[int], vocab: int, leaves: int) -> tuple[list[int], list[int]]:
    """The operations, and what they leave in the order of its coming; a pop takes what stands at `leaves`."""
    operations = split_at(tokens, vocab)[0]
    symbols(operations, 0, vocab)
    content: list[int] = []
    for step, operation in enumerate(operations):
        if len(content) == vocab - 1:
            assert operation == 0
        elif len(content) <= 1:
            assert operation != 0
        elif step == len(operations) - 1:
            assert operation == 0
        if operation == 0:
            content.pop(leaves)
        else:
            assert operation not in content
            content.append(operation)
    return operations, content


def stack(tokens: list[int], vocab: int = 100) -> Answer:
    operations, content = stored(tokens, vocab, -1)
    return [*operations, vocab, *reversed(content)], len(operations)


def queue(tokens: list[int], vocab: int = 100) -> Answer:
    operations, content = stored(tokens, vocab, 0)
    return [*operations, vocab, *content], len(operations)


def multi_hop(
    tokens: list[int],
    vocab: int = 64,
    pairs: int = 16,
    min_pairs: int | None = None,
    hops: int = 2,
    min_hops: int | None = None,
) -> Answer:
    *told, asked, count, _ = tokens
    assert (min_pairs or pairs) <= len(told) // 2 <= pairs
    assert (min_hops or hops) <= count - vocab + 1 <= hops
    refers: dict[int, int] = {}
    for head, end in zip(told[::2], told[1::2]):
        assert 0 <= head < vocab
        assert head not in refers
        refers[head] = end
    seen, name = [], asked
    while name not in seen:
        seen.append(name)
        name = refers[name]
    assert sorted(seen) == sorted(refers), "one ring"
    for _ in range(count - vocab + 1):
        asked = refers[asked]
    return [*tokens[:-1], asked], len(told) + 1


def dyck(tokens: list[int], k: int = 16) -> Answer:
    opened: list[int] = []
    for token in symbols(tokens, 0, 2 * k):
        if token < k:
            opened.append(token)
        else:
            assert opened.pop() == token - k
    assert not opened
    return tokens, 0


def dyck_shuffle(tokens: list[int], k: int = 16, max_depth: int = 16) -> Answer:
    opened: list[int] = []
    for token in symbols(tokens, 0, 2 * k):
        if token < k:
            opened.append(token)
        else:
            opened.remove(token - k)
        assert len(opened) <= max_depth
    return tokens, 0


def eca(tokens: list[int], rule: int = 110, cells: int = 32, bits: int = 4, rows: int = 16) -> Answer:
    per_row = cells // bits
    row = [int(digit) for token in tokens[:per_row] for digit in format(token, "b").zfill(bits)]
    assert len(row) == cells
    history = list(row)
    for _ in range(rows - 1):
        successor = []
        for i in range(cells):
            left, own, right = row[i - 1], row[i], row[(i + 1) % cells]
            # Wolfram's numbering: the neighbourhood as a binary number names the bit of the rule.
            successor.append(rule // 2 ** (4 * left + 2 * own + right) % 2)
        row = successor
        history += row
    sequence = []
    for start in range(0, len(history), bits):
        number = 0
        for bit in history[start : start + bits]:
            number = 2 * number + bit
        sequence.append(number)
    return sequence, per_row - 1


def neural_ca(
    tokens: list[int],
    cells: int = 16,
    rows: int = 16,
    states: int = 4,
    radius: int = 1,
    group: int = 2,
    hidden: int = 16,
    rule_seed: int = 3,
    rules: int = 1,
) -> Answer:
    per_row = cells // group
    first = [token // states**place % states for token in tokens[:per_row] for place in range(group - 1, -1, -1)]
    found = []
    for seed in range(rule_seed, rule_seed + rules):
        network = update_network(seed, n_states=states, radius=radius, hidden=hidden)
        W_in, b_in, W_out = network.W_in.tolist(), network.b_in.tolist(), network.W_out.tolist()
        history, row = list(first), first
        for _ in range(rows - 1):
            successor = []
            for i in range(cells):
                near = [row[(i + offset) % cells] for offset in range(-radius, radius + 1)]
                sums = [b + sum(w[states * j + near[j]] for j in range(len(near))) for w, b in zip(W_in, b_in)]
                signs = [(x > 0) - (x < 0) for x in sums]
                scores = [sum(w * sign for w, sign in zip(weights, signs)) for weights in W_out]
                successor.append(scores.index(max(scores)))
            row = successor
            history += row
        sequence = []
        for start in range(0, len(history), group):
            number = 0
            for state in history[start : start + group]:
                number = states * number + state
            sequence.append(number)
        found.append(sequence)
    return next((sequence for sequence in found if sequence == tokens), found[0]), per_row - 1


def next_token_chances(
    tokens: list[int],
    vocab: int = 32,
    d_state: int = 16,
    radius: float = 0.9,
    temperature: float = 0.5,
    network_seed: int = 0,
) -> list[list[float]]:
    """Chances of every token at each position under the linear recurrent network, in real numbers."""
    network = linear_network(network_seed, n_symbols=vocab, d_state=d_state, radius=radius)
    A, B, C = network.A.tolist(), network.B.tolist(), network.C.tolist()
    h, chances = [0.0] * d_state, []
    for token in tokens:
        weights = [math.exp(sum(c * x for c, x in zip(row, h)) / temperature) for row in C]
        chances.append([weight / sum(weights) for weight in weights])
        h = [sum(a * x for a, x in zip(A[i], h)) + B[token][i] for i in range(d_state)]
    return chances


def linear_rnn(tokens: list[int], vocab: int = 32, **network: float) -> Answer:
    symbols(tokens, 0, vocab)
    for token, chances in zip(tokens, next_token_chances(tokens, vocab, **network)):
        assert chances[token] > 1e-7
    return tokens, 0


def haystack(tokens: list[int], max_pairs: int = 30, min_pairs: int = 1) -> Answer:
    *pairs, query, _ = tokens
    n_pairs, odd = divmod(len(pairs), 2)
    assert odd == 0
    assert min_pairs <= n_pairs <= max_pairs
    found: dict[int, int] = {}
    for i in range(n_pairs):
        key, value = pairs[2 * i], pairs[2 * i + 1]
        assert 128 <= key <= 157
        assert key not in found
        assert 1 <= value <= 127
        found[key] = value
    return [*pairs, query, found[query - 30]], len(pairs)


def arithmetic(tokens: list[int], digits: int, operator: str, backwards: bool, mask: str) -> Answer:
    def number(part: list[int]) -> int:
        symbols(part, 0, 10)
        assert len(part) == digits
        text = "".join(str(digit) for digit in (reversed(part) if backwards else part))
        assert not text.startswith("0")
        return int(text)

    a_digits, rest = tokens[:digits], tokens[digits + 1 :]
    b_digits = rest[:digits]
    a, b = number(a_digits), number(b_digits)
    text = str(a + b if operator == "+" else a * b)
    answer = [20 + int(digit) for digit in (text[::-1] if backwards else text)]
    sequence = [*a_digits, 10, *b_digits, 11, *answer, 30]
    return sequence, sequence.index(11) + (mask == "paper")


def addition(tokens: list[int], digits: int = 5, mask: str = "answer") -> Answer:
    return arithmetic(tokens, digits, "+", False, mask)


def reversed_addition(tokens: list[int], digits: int = 10, mask: str = "answer") -> Answer:
    return arithmetic(tokens, digits, "+", True, mask)


def multiplication(tokens: list[int], digits: int = 5, mask: str = "answer") -> Answer:
    return arithmetic(tokens, digits, "*", False, mask)


def composed(tokens: list[int], vocab: int = 50, n_primitives: int = 2, which: str = "seen") -> Answer:
    names = ["identity", "reverse", "sort", "set", "delete", "rotate"]
    separator = vocab + 6
    program, x, (target,), _ = split_at(tokens, separator)
    symbols(x, 1, vocab)
    assert len(set(x)) > 1
    assert target in x
    steps = [token - vocab for token in symbols(program, vocab, vocab + 6)]
    assert len(steps) == n_primitives
    unseen = any((steps[i + 1] - steps[i]) % 6 == 2 for i in range(len(steps) - 1))
    assert which == "all" or unseen == (which == "unseen")
    y = list(x)
    for step in steps:
        if names[step] == "reverse":
            y = y[::-1]
        elif names[step] == "sort":
            y = insertion_sort(y)
        elif names[step] == "set":
            y = without_repeats(y)
        elif names[step] == "delete" and target in y:
            y.remove(target)
        elif names[step] == "rotate":
            y = [*y[1:], y[0]]
    return [*program, separator, *x, separator, target, separator, *y], n_primitives + len(x) + 3


ORACLES = {
    "composed": composed,
    "identity": identity,
    "reverse": reverse,
    "ww": ww,
    "sort": sort,
    "sorting": sorting,
    "set": set_,
    "union": union,
    "delete": delete,
    "stack": stack,
    "queue": queue,
    "multi_hop": multi_hop,
    "dyck": dyck,
    "dyck_shuffle": dyck_shuffle,
    "eca": eca,
    "neural_ca": neural_ca,
    "linear_rnn": linear_rnn,
    "haystack": haystack,
    "addition": addition,
    "reversed_addition": reversed_addition,
    "multiplication": multiplication,
}
