"""Building the kernel: once, by one of several processes, and a one-line reason where it cannot be done."""

import ctypes
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from procpre_interp.cli import main
from procpre_interp.core.atomic_files import cache_folder
from procpre_interp.data import TASKS
from procpre_interp.model import HookedTransformer
from procpre_interp.pipeline.config import Architecture, RunConfig, model_config
from procpre_interp.pipeline.execute import execute
from procpre_interp.store.store import RunStore
from procpre_interp.train import Interrupted, TrainConfig
from procpre_interp.train.native import NativeStep, why_not
from procpre_interp.train.native import build as module
from procpre_interp.train.native.build import (
    LEVEL_FLAGS,
    PROCESSORS,
    KernelShape,
    KernelUnavailable,
    build,
    compile_kernel,
    compiler,
    is_built,
    level_flags,
)

pytestmark = pytest.mark.usefixtures("a_compiler")

SHAPE = KernelShape(n_heads=2, d_model=16, d_mlp=16, tokens=256)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "native"


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that gets a line for each compilation (`-c`), by a wrapper around the compiler. It optimises nothing."""
    log, wrapper = tmp_path / "calls", tmp_path / "wrapper"
    wrapper.write_text(
        f'#!/bin/sh\ncase " $* " in *" -c "*) echo compiled >> {log};; esac\nexec {compiler()[0]} "$@" -O0\n'
    )
    wrapper.chmod(0o755)
    log.touch()
    monkeypatch.setenv("CXX", str(wrapper))
    return log


def replace_compiler(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """$CXX is a shell script from here on: these lines, then the real compiler, which optimises nothing."""
    path = folder / "compiler"
    path.write_text(f'#!/bin/sh\n{script}\nexec {compiler_without_delay()} "$@" -O0\n')
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))


ASK = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("build", {module.__file__!r})
sys.modules["build"] = build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)
print(build.build(build.KernelShape(n_heads=2, d_model=16, d_mlp=16, tokens=256)))
"""
"""Asks for the library of `SHAPE`, without the package around the module, whose torch takes seconds to import."""


def ask() -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", ASK], stdout=subprocess.PIPE, text=True)


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    for name in ("PROCPRE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    usual = Path("/home/somebody/.cache/procpre_interp")
    assert cache_folder() == usual
    for caches, expected in (("", usual), ("not/absolute", usual), ("/var/cache", Path("/var/cache/procpre_interp"))):
        monkeypatch.setenv("XDG_CACHE_HOME", caches)
        assert cache_folder() == expected
    monkeypatch.setenv("PROCPRE_CACHE", "~/own")
    assert cache_folder() == Path("/home/somebody/own")


@pytest.fixture
def no_home(monkeypatch) -> None:
    """As in a service or a container, whose user has no entry among the passwords."""
    for name in ("HOME", "PROCPRE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])


@pytest.mark.usefixtures("no_home")
def test_without_a_home_folder_and_temporary_files_auto_is_torch_and_says_what_to_set(
    monkeypatch, tmp_path, capsys, no_temporary_files
):
    config = RunConfig(task=TASKS.build("haystack"))
    assert config.resolve().train.kernel == "torch"
    assert "kernel: torch, since" in str(config.kernel_note)
    assert "set PROCPRE_CACHE" in str(config.kernel_note)
    assert config.compile_note is None
    with pytest.raises(OSError, match="set PROCPRE_CACHE"):
        cache_folder()
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--task", "text", "--task.length", "8"]) == 1
    assert "set PROCPRE_CACHE" in capsys.readouterr().err
    assert main(["train", "--task", "haystack", "--train.kernel", "native"]) == 2
    assert "set PROCPRE_CACHE" in capsys.readouterr().err


@pytest.fixture
def temporary_files(tmp_path, monkeypatch) -> Path:
    """The system's folder for temporary files, empty."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


@pytest.fixture
def no_temporary_files(tmp_path, monkeypatch) -> None:
    (tmp_path / "no folder").write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "no folder"))


@pytest.mark.usefixtures("no_home")
def test_without_a_home_folder_the_kernel_is_compiled_among_temporary_files(calls, temporary_files):
    assert build(SHAPE).parent.parent == temporary_files
    assert calls.read_text() == "compiled\n"


def test_where_the_cache_cannot_be_written_the_kernel_is_compiled_once_among_temporary_files(
    tmp_path, monkeypatch, calls, temporary_files, caplog
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "file"))
    assert not is_built(SHAPE)
    library = build(SHAPE)
    assert library.parent.parent == temporary_files
    assert library.parent.stat().st_mode & 0o777 == 0o700
    assert is_built(SHAPE)
    ctypes.CDLL(str(library))
    assert "Not a directory: the native kernel is compiled in" in caplog.text
    module._build.cache_clear()  # another process
    assert build(SHAPE) == library
    assert calls.read_text() == "compiled\n"
    assert caplog.text.count("is compiled in") == 1


@pytest.mark.parametrize("harm", ["open to all", "a link", "a file"])
def test_no_library_is_taken_from_where_others_could_put_one(harm, tmp_path, monkeypatch, calls, temporary_files):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "file"))
    library = build(SHAPE)
    module._build.cache_clear()
    match harm:
        case "open to all":
            library.parent.chmod(0o777)
        case "a link":
            library.parent.rename(tmp_path / "elsewhere")
            library.parent.symlink_to(tmp_path / "elsewhere")
        case _:
            shutil.rmtree(library.parent)
            library.parent.write_text("")
    with pytest.raises(KernelUnavailable, match="set PROCPRE_CACHE"):
        build(SHAPE)


def test_a_run_of_the_native_kernel_goes_on_where_its_cache_is_read_only(tmp_path, monkeypatch, temporary_files):
    store, steps = RunStore(tmp_path / "store"), []
    train = TrainConfig(steps=6, batch_size=2, evaluate_examples=4, warmup_steps=0)
    config = RunConfig(task=TASKS.build("haystack"), model=Architecture(n_layers=1, n_heads=2, d_model=16), train=train)
    with pytest.raises(Interrupted):
        execute(config, store, on_step=lambda s, t: steps.append(s.step), should_stop=lambda: len(steps) == 3)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "file"))
    run = execute(config, store, on_step=lambda s, t: steps.append(s.step))
    assert run.summary["kernel"] == "native"
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_run_that_is_not_gone_on_with_is_said(tmp_path, monkeypatch, no_temporary_files):
    store, steps, notes = RunStore(tmp_path / "store"), [], []
    train = TrainConfig(steps=6, batch_size=2, evaluate_examples=4, warmup_steps=0)
    config = RunConfig(task=TASKS.build("haystack"), model=Architecture(n_layers=1, n_heads=2, d_model=16), train=train)
    with pytest.raises(Interrupted):
        execute(config, store, on_step=lambda s, t: steps.append(s.step), should_stop=lambda: len(steps) == 3)
    begun = config.run_id
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "file"))
    assert execute(config, store, on_note=notes.append).summary["kernel"] == "torch"
    assert [note for note in notes if begun in note] == notes
    assert "set PROCPRE_CACHE to a folder that can be written" in notes[0]


def test_several_processes_build_once(cache, calls):
    answers = {process.communicate()[0].strip() for process in [ask() for _ in range(3)]}
    assert calls.read_text().splitlines() == ["compiled"]
    (library,) = map(Path, answers)
    assert set(cache.iterdir()) == {library, library.with_suffix(".sha256")}  # neither lock nor parts remain
    assert ctypes.CDLL(str(library)).kernel_step
    assert build(SHAPE) == library
    assert calls.read_text().splitlines() == ["compiled"]


def test_what_the_code_depends_on_names_the_library(cache, calls, tmp_path, monkeypatch):
    keys = [module._key(SHAPE, "native", compiler())]
    keys.append(module._key(KernelShape(n_heads=4, d_model=16, d_mlp=16, tokens=256), "native", compiler()))
    keys.append(module._key(SHAPE, "plain", compiler()))
    keys.append(module._key(SHAPE, "native", (*compiler(), "-DOTHER")))
    for source in Path(module.__file__).parent.glob("*.[ch]*"):
        shutil.copy(source, tmp_path)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "build.py"))
    assert module._key(SHAPE, "native", compiler()) == keys[0]
    (tmp_path / "vector.h").write_text((tmp_path / "vector.h").read_text() + "\n")
    keys.append(module._key(SHAPE, "native", compiler()))
    assert len(set(keys)) == len(keys)


def test_a_damaged_library_is_made_again(cache, calls):
    library = build(SHAPE)
    module._build.cache_clear()
    for damage in (b"", library.read_bytes()[:1000]):
        library.unlink()
        library.write_bytes(damage)
        # In another process: this one has the library loaded.
        process = ask()
        assert process.communicate()[0].strip() == str(library)
        assert library.stat().st_size > 1000
    assert len(calls.read_text().splitlines()) == 3


def test_a_killed_build_leaves_no_library(cache, tmp_path, monkeypatch):
    slow = tmp_path / "slow"
    stall = f'case " $* " in *" -shared "*) touch {tmp_path}/linking; sleep 60;; esac'
    slow.write_text(f'#!/bin/sh\n{stall}\nexec {compiler()[0]} "$@" -O0\n')
    slow.chmod(0o755)
    monkeypatch.setenv("CXX", str(slow))
    process = subprocess.Popen([sys.executable, "-c", ASK], stdout=subprocess.DEVNULL, start_new_session=True)
    while not (tmp_path / "linking").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(cache.glob("*.so"))
    replace_compiler(tmp_path, monkeypatch, "")
    assert build(SHAPE).exists()
    # The next build of the same library removes what this one left.
    assert list(cache.glob(".*.tmp*"))
    slow.write_text(f'#!/bin/sh\nexec {compiler_without_delay()} "$@" -O0\n')
    monkeypatch.setenv("CXX", str(slow))
    assert build(SHAPE).exists()
    assert {path.suffix for path in cache.iterdir()} == {".so", ".sha256"}


def compiler_without_delay() -> str:
    return next(path for name in ("c++", "g++", "clang++") if (path := shutil.which(name)))


def test_old_leftovers_of_other_builds_are_removed(cache, calls):
    cache.mkdir(parents=True)
    names = [f".{'0' * 24}.so.{number}.tmp" for number in (1, 2)]
    names += [f"{name}.o" for name in names]
    for name in names:
        (cache / name).write_text("")
        if ".1." in name:
            long_ago = time.time() - module.LEFTOVER_SECONDS - 60
            os.utime(cache / name, (long_ago, long_ago))
    library = build(SHAPE)
    young = {cache / name for name in names if ".2." in name}  # another process may be at work on these
    assert set(cache.iterdir()) == {library, library.with_suffix(".sha256"), *young}


UNLOADABLE = """
case " $* " in *" -shared "*)
    while [ "$1" != -o ]; do shift; done
    echo nonsense > "$2"
    exit 0;;
esac
"""


def test_a_library_that_cannot_be_loaded_is_refused_each_time(cache, tmp_path, monkeypatch):
    replace_compiler(tmp_path, monkeypatch, UNLOADABLE)
    run = RunConfig(
        task=TASKS.build("dyck", k=4, length=24),
        model=Architecture(n_heads=2, d_model=16, d_mlp=16),
        train=TrainConfig(steps=2, batch_size=2, learning_rate=1e-3, warmup_steps=1, kernel="auto"),
    )
    model = HookedTransformer.from_seed(model_config(run), 0)
    for _ in range(3):
        reason = why_not(model.config)
        assert reason is not None
        assert f"{cache}/" in reason
        assert "is compiled but cannot be loaded: " in reason
        assert "written" not in reason  # the folder can be
        assert "\n" not in reason
        with pytest.raises(KernelUnavailable, match="cannot be loaded"):
            NativeStep(model, threads=1)
        assert run.resolve().train.kernel == "torch"
        assert "cannot be loaded" in (run.kernel_note or "")
    assert len(list(cache.glob("*.so"))) == 1


def test_a_folder_that_nothing_can_be_run_from(cache, tmp_path, monkeypatch):
    """Loading fails for another reason here: mounting a folder takes an administrator."""
    replace_compiler(tmp_path, monkeypatch, UNLOADABLE)
    monkeypatch.setattr(os, "ST_NOEXEC", 8, raising=False)
    for flags, expected in ((8 | 1, True), (1, False)):
        monkeypatch.setattr(os, "statvfs", lambda path, flags=flags: types.SimpleNamespace(f_flag=flags))
        with pytest.raises(KernelUnavailable) as problem:
            build(SHAPE)
        assert str(problem.value).endswith("noexec: set PROCPRE_CACHE to a folder that is not") == expected


def test_a_compiler_that_does_not_know_its_own_processor(cache, tmp_path, monkeypatch):
    refuse = "echo \"error: unknown value 'native'\" >&2; exit 1"
    pattern = '*" -march="*|*" -mcpu="*'
    replace_compiler(tmp_path, monkeypatch, f'case " $* " in {pattern}) {refuse};; esac')
    assert ctypes.CDLL(str(build(SHAPE))).kernel_step
    compile_kernel(SHAPE, tmp_path / "kernel.so")
    assert (tmp_path / "kernel.so").exists()
    if level_flags("plain"):  # what was asked for by name is not replaced
        with pytest.raises(KernelUnavailable, match="unknown value 'native'"):
            build(SHAPE, "plain")


@pytest.mark.parametrize("chosen", ["'g++", 'g++ -DNAME="a', "g++ \\"])
def test_quotes_that_do_not_close(chosen, monkeypatch):
    monkeypatch.setenv("CXX", chosen)
    with pytest.raises(KernelUnavailable) as problem:
        build(SHAPE)
    assert str(problem.value).startswith(f"no C++ compiler: CXX={chosen!r} cannot be split into words: No ")


@pytest.mark.parametrize("chosen", ["no-such-compiler", "/no/such/compiler --flag"])
def test_no_compiler(chosen, monkeypatch):
    monkeypatch.setenv("CXX", chosen)
    with pytest.raises(KernelUnavailable, match="no C\\+\\+ compiler"):
        build(SHAPE)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(KernelUnavailable, match="no C\\+\\+ compiler"):
        build(SHAPE)


def test_a_compiler_that_fails_says_why_in_one_line(cache, tmp_path, monkeypatch):
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'first' >&2; echo 'fatal error: too old' >&2; echo 'error: more' >&2; exit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(KernelUnavailable) as problem:
        build(SHAPE)
    assert "exit code 3" in str(problem.value)
    assert str(problem.value).endswith("fatal error: too old")
    assert "\n" not in str(problem.value)


def test_an_unknown_processor(cache, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "vax")
    with pytest.raises(KernelUnavailable, match="unknown processor 'vax'"):
        build(SHAPE)


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, no_temporary_files):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "file"))
    with pytest.raises(KernelUnavailable, match="set PROCPRE_CACHE"):
        build(SHAPE)


@pytest.mark.parametrize("level", ["native", "avx512", "avx2", "plain"])
def test_every_level_compiles(level, tmp_path):
    if level not in LEVEL_FLAGS[PROCESSORS[platform.machine().lower()]]:
        pytest.skip("another kind of processor")
    compile_kernel(SHAPE, tmp_path / "kernel.so", level=level, flags=["-O0"])
    assert (tmp_path / "kernel.so").exists()
    assert not (tmp_path / "kernel.so.o").exists()


def test_arm_compiles_where_there_is_a_cross_compiler(tmp_path, monkeypatch):
    cross = shutil.which("aarch64-linux-gnu-g++")
    if cross is None:
        pytest.skip("no aarch64-linux-gnu-g++")
    monkeypatch.setenv("CXX", cross)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert level_flags("plain") == ()
    compile_kernel(SHAPE, tmp_path / "kernel.so", level="plain")


DENORMALS = """
import ctypes, sys
import numpy as np, torch
ctypes.CDLL(sys.argv[1])
assert (torch.tensor(1e-40) * 2).item() > 0
assert np.float32(1e-40) * np.float32(2) > 0
"""


def test_denormal_numbers_survive_loading():
    """gcc before 13 links code that flushes them in the whole process when it is asked for fast maths."""
    subprocess.run([sys.executable, "-c", DENORMALS, str(build(SHAPE))], check=True)
