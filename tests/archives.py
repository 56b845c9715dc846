"""Wheels and Debian packages built for tests, and an apt-get that has them."""

import io
import os
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path


def make_wheel(folder: Path, name: str, version: str, files: Mapping[str, bytes]) -> Path:
    """A wheel that pip takes for one."""
    stem = f"{name.replace('-', '_')}-{version}"
    about = f"{stem}.dist-info"
    rest = {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": b"",
    }
    path = folder / f"{stem}-py3-none-any.whl"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for member, content in {**files, **rest}.items():
            wheel.writestr(member, content)
    return path


def make_deb(folder: Path, name: str, version: str, files: Mapping[str, bytes]) -> Path:
    """A Debian package that dpkg-deb opens: an archive of ar with two of tar in it."""
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: a\nDescription: a\n".encode()
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": _tar({"./control": control}),
        "data.tar.xz": _tar({f"./{member}": content for member, content in files.items()}),
    }
    path = folder / f"{name}_{version}_all.deb"
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as deb:
        deb.write(b"!<arch>\n")
        for member, content in members.items():
            deb.write(f"{member:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode())
            deb.write(content + b"\n" * (len(content) % 2))
    return path


def _tar(files: Mapping[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:xz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


def make_apt_get(folder: Path, archives: Path) -> str:
    """The value of PATH with an apt-get that copies from `archives` the package that it is asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "apt-get"
    program.write_text(
        "#!/bin/sh\n"
        'for package; do :; done; echo "$package" >> "$0.log"\n'
        f'cp "{archives}"/"${{package%%=*}}"_*.deb . 2>/dev/null && exit 0\n'
        'echo "E: Unable to locate package $package"; exit 100\n'
    )
    program.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"
