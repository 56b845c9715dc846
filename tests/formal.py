"""A small formal database for tests."""

from pathlib import Path

DECLARED = """
$( A tiny database. $( is no nested comment. $)
$c ( ) -> wff |- A. set $.
$v ph ps ch x y $.
wph $f wff ph $.  wps $f wff ps $.  wch $f wff ch $.  vx $f set x $.  vy $f set y $.
wi $a wff ( ph -> ps ) $.
wal $a wff A. x ph $.
ax-1 $a |- ( ph -> ( ps -> ph ) ) $.
ax-2 $a |- ( ( ph -> ( ps -> ch ) ) -> ( ( ph -> ps ) -> ( ph -> ch ) ) ) $.
${ min $e |- ph $.  maj $e |- ( ph -> ps ) $.  ax-mp $a |- ps $. $}
${ $d x ph $.  ax-5 $a |- ( ph -> A. x ph ) $. $}
"""
A1I = """
${ a1i.1 $e |- ph $.
   a1i $p |- ( ps -> ph ) $= wph wps wph wi a1i.1 wph wps ax-1 ax-mp $.
$}
"""


def database(folder: Path, n: int = 80) -> str:
    """Theorems `( x1 -> ( x2 -> .. ( ph -> ( ps -> ph ) ) ) )` by a1i, one step for each arrow, of all words of x's."""
    rest = "\n".join(
        f"t{number} $p |- ( {first} -> ( ph -> ( ps -> ph ) ) ) $= {proof} ax-1 a1i $."
        for number, first, proof in wffs(n)
    )
    path = folder / "tiny.mm"
    path.write_text(DECLARED + A1I + rest)
    return f"file:{path}"


def wffs(n: int) -> list[tuple[int, str, str]]:
    """Formulas of growing size: number, text, and the proof that the theorem about it begins with."""
    formulas = [("ph", "wph"), ("ps", "wps"), ("ch", "wch")]
    for one, other in ((a, b) for a in range(n) for b in range(a + 1)):
        if len(formulas) >= n:
            break
        (left, left_proof), (right, right_proof) = formulas[one], formulas[other]
        formulas.append((f"( {left} -> {right} )", f"{left_proof} {right_proof} wi"))
    given = "wph wps wph wi wi"
    return [(i, text, f"{given} {proof} wph wps") for i, (text, proof) in enumerate(formulas)]
