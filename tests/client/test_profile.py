"""Which service is asked, with which token: arguments, environment, file; and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from plait.errors import SpecInvalid
from plait.profile import DEFAULT_URL, Profile, find_profile

SECRET = "plait_a-token-that-nobody-should-see"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "plait" / "config.toml"
    path.parent.mkdir()
    return path


def write(file: Path, text: str, mode: int = 0o600) -> None:
    file.write_text(text)
    file.chmod(mode)


def find(tmp_path: Path, *arguments: str | None, **environment: str) -> Profile:
    return find_profile(*arguments, environment={"XDG_CONFIG_HOME": str(tmp_path), **environment})


class TestWhatIsFound:
    def test_nothing_is_the_service_of_this_machine(self, tmp_path: Path) -> None:
        assert find(tmp_path) == Profile(url=DEFAULT_URL)

    def test_the_environment(self, tmp_path: Path) -> None:
        found = find(tmp_path, PLAIT_URL="https://a.example/", PLAIT_TOKEN=SECRET)
        assert (found.url, found.token) == ("https://a.example", SECRET)

    def test_arguments_come_first(self, tmp_path: Path, file: Path) -> None:
        write(file, '[default]\nurl = "https://file.example"\n')
        found = find(
            tmp_path, "https://b.example", "other", PLAIT_URL="https://a.example", PLAIT_TOKEN=SECRET
        )
        assert (found.url, found.token) == ("https://b.example", "other")

    def test_the_file(self, tmp_path: Path, file: Path) -> None:
        (tmp_path / "secret").write_text(f"{SECRET}\n")
        (tmp_path / "secret").chmod(0o400)
        write(
            file,
            f'[default]\nurl = "https://a.example"\ntoken = "{SECRET}"\n'
            f'[other]\nurl = "http://b.example"\ninsecure = true\ntoken_file = "{tmp_path}/secret"\n',
        )
        assert find(tmp_path) == Profile(url="https://a.example", token=SECRET)
        other = Profile(url="http://b.example", token=SECRET, insecure=True)
        assert find(tmp_path, PLAIT_PROFILE="other") == other
        assert find(tmp_path, None, None, "other") == other

    def test_one_that_is_named_is_taken_whole(self, tmp_path: Path, file: Path) -> None:
        write(file, '[other]\nurl = "https://b.example"\n')
        found = find(tmp_path, None, None, "other", PLAIT_URL="https://a.example", PLAIT_TOKEN=SECRET)
        assert (found.url, found.token) == ("https://b.example", None)

    def test_its_token_goes_to_its_url_alone(self, tmp_path: Path, file: Path) -> None:
        write(file, f'[default]\nurl = "https://a.example/"\ntoken = "{SECRET}"\n')
        assert find(tmp_path, "https://evil.example").token is None
        assert find(tmp_path, PLAIT_URL="https://evil.example").token is None
        assert find(tmp_path, PLAIT_URL="https://a.example").token == SECRET

    def test_the_usual_place(self, tmp_path: Path) -> None:
        usual = tmp_path / ".config" / "plait" / "config.toml"
        usual.parent.mkdir(parents=True)
        write(usual, '[default]\nurl = "https://a.example"\n')
        assert find_profile(environment={"HOME": str(tmp_path)}).url == "https://a.example"

    def test_a_broken_file_is_no_matter_to_whom_says_it_all(self, tmp_path: Path, file: Path) -> None:
        write(file, "no toml")
        assert find(tmp_path, PLAIT_URL="https://a.example", PLAIT_TOKEN=SECRET).token == SECRET


class TestWhatIsRefused:
    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
    def test_a_token_that_others_can_read(self, tmp_path: Path, file: Path, mode: int) -> None:
        write(file, f'[default]\ntoken = "{SECRET}"\n', mode)
        with pytest.raises(SpecInvalid, match="chmod 600") as raised:
            find(tmp_path)
        assert SECRET not in str(raised.value)

    def test_a_tokens_file_that_others_can_read(self, tmp_path: Path, file: Path) -> None:
        (tmp_path / "secret").write_text(SECRET)
        (tmp_path / "secret").chmod(0o644)
        write(file, f'[default]\ntoken_file = "{tmp_path}/secret"\n', 0o644)
        with pytest.raises(SpecInvalid, match="chmod 600"):
            find(tmp_path)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("[default]\nurl = 7\n", "expected text"),
            ('[default]\ninsecure = "yes"\n', "expected true or false"),
            ('[default]\nurll = "https://a.example"\n', "unknown key 'urll'"),
            ('[default]\ntoken = "a"\ntoken_file = "b"\n', "both"),
            ('[default]\ntoken_file = "/nowhere/at/all"\n', "no such file"),
            ('[default]\nurl = "ftp://a.example"\n', "expected http://"),
            ("default = 3\n", "no profile 'default'"),
            ("[default\n", "no TOML"),
        ],
    )
    def test_a_file_that_is_wrong(self, tmp_path: Path, file: Path, text: str, said: str) -> None:
        write(file, text)
        with pytest.raises(SpecInvalid, match=said):
            find(tmp_path)

    def test_a_profile_that_is_not_there(self, tmp_path: Path, file: Path) -> None:
        with pytest.raises(SpecInvalid, match=r"no profile .x..*no such file"):
            find(tmp_path, PLAIT_PROFILE="x")
        write(file, '[a]\nurl = "https://a.example"\n')
        with pytest.raises(SpecInvalid, match="There are a"):
            find(tmp_path, None, None, "x")

    @pytest.mark.parametrize(
        "url", ["http://a.example", "http://10.0.0.1:8421", "http://localhost.evil.example"]
    )
    def test_a_token_over_plain_http(self, url: str, tmp_path: Path) -> None:
        with pytest.raises(SpecInvalid, match="plain HTTP") as raised:
            find(tmp_path, url, SECRET)
        assert SECRET not in str(raised.value)
        assert find(tmp_path, url, SECRET, PLAIT_INSECURE="1").token == SECRET
        assert find(tmp_path, url).token is None

    @pytest.mark.parametrize(
        "url", ["http://127.0.0.1:8421", "http://localhost", "http://[::1]:80", "http://127.9.9.9"]
    )
    def test_but_not_to_this_machine(self, url: str, tmp_path: Path) -> None:
        assert find(tmp_path, url, SECRET).token == SECRET

    @pytest.mark.parametrize(
        "url",
        [
            "a.example",
            "https://",
            "https://a.example?x=1",
            "https://a.example:x",
            "https://a b",
            "https://[::1",
            "file:///a",
        ],
    )
    def test_what_is_no_url(self, url: str, tmp_path: Path) -> None:
        with pytest.raises(SpecInvalid, match="URL of the service"):
            find(tmp_path, url)

    def test_credentials_in_the_url(self, tmp_path: Path) -> None:
        with pytest.raises(SpecInvalid, match="credentials") as raised:
            find(tmp_path, "https://me:hidden@a.example")
        assert "hidden" not in str(raised.value)

    @pytest.mark.parametrize("token", [f"{SECRET}\r\nX: y", f"{SECRET} ", f"{SECRET}ü", ""])
    def test_a_token_that_no_header_can_carry(self, token: str) -> None:
        with pytest.raises(SpecInvalid, match="printable ASCII") as raised:
            Profile(token=token)
        assert SECRET not in str(raised.value)


def test_the_token_is_in_no_repr() -> None:
    assert SECRET not in repr(Profile(token=SECRET))
