"""URI templates: expansion by RFC 6570's own examples, matching as its inverse, in time, and not out of the directory."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mcpfast.errors import RegistrationError
from mcpfast.server.uri_template import URI_CHARS_MAX, TemplateTable, UriTemplate, is_unsafe

# ---------------------------------------------------------------- expansion: RFC 6570, 1.2, 3.2 and their variables

RFC_VARIABLES: dict[str, Any] = {
    "count": ["one", "two", "three"],
    "dom": ["example", "com"],
    "dub": "me/too",
    "hello": "Hello World!",
    "half": "50%",
    "var": "value",
    "who": "fred",
    "base": "http://example.com/home/",
    "path": "/foo/bar",
    "list": ["red", "green", "blue"],
    "v": "6",
    "x": "1024",
    "y": "768",
    "empty": "",
    "empty_list": [],
}


@pytest.mark.parametrize(
    ("template", "uri"),
    [
        ("{var}", "value"),
        ("{hello}", "Hello%20World%21"),
        ("{half}", "50%25"),
        ("O{empty}X", "OX"),
        ("O{undef}X", "OX"),
        ("{x,y}", "1024,768"),
        ("{x,hello,y}", "1024,Hello%20World%21,768"),
        ("?{x,empty}", "?1024,"),
        ("?{x,undef}", "?1024"),
        ("?{undef,y}", "?768"),
        ("{list}", "red,green,blue"),
        ("{+var}", "value"),
        ("{+hello}", "Hello%20World!"),
        ("{+half}", "50%25"),
        ("{base}index", "http%3A%2F%2Fexample.com%2Fhome%2Findex"),
        ("{+base}index", "http://example.com/home/index"),
        ("{+path}/here", "/foo/bar/here"),
        ("here?ref={+path}", "here?ref=/foo/bar"),
        ("{+list}", "red,green,blue"),
        ("{#var}", "#value"),
        ("{#hello}", "#Hello%20World!"),
        ("foo{#empty}", "foo#"),
        ("foo{#undef}", "foo"),
        ("{.who}", ".fred"),
        ("{.half}", ".50%25"),
        ("www{.dom*}", "www.example.com"),
        ("X{.list}", "X.red,green,blue"),
        ("X{.list*}", "X.red.green.blue"),
        ("X{.empty_list}", "X"),
        ("{/who}", "/fred"),
        ("{/half,who}", "/50%25/fred"),
        ("{/who,dub}", "/fred/me%2Ftoo"),
        ("{/var,empty}", "/value/"),
        ("{/var,undef}", "/value"),
        ("{/var,x}/here", "/value/1024/here"),
        ("{/list}", "/red,green,blue"),
        ("{/list*}", "/red/green/blue"),
        ("{;who}", ";who=fred"),
        ("{;half}", ";half=50%25"),
        ("{;empty}", ";empty"),
        ("{;v,empty,who}", ";v=6;empty;who=fred"),
        ("{;x,y,undef}", ";x=1024;y=768"),
        ("{;list}", ";list=red,green,blue"),
        ("{;list*}", ";list=red;list=green;list=blue"),
        ("{?who}", "?who=fred"),
        ("{?x,y}", "?x=1024&y=768"),
        ("{?x,y,empty}", "?x=1024&y=768&empty="),
        ("{?x,y,undef}", "?x=1024&y=768"),
        ("{?list}", "?list=red,green,blue"),
        ("{?list*}", "?list=red&list=green&list=blue"),
        ("?fixed=yes{&x}", "?fixed=yes&x=1024"),
        ("{&x,y,empty}", "&x=1024&y=768&empty="),
        ("{+path*}", "/foo/bar"),
        ("files/{path*}", "files//foo/bar"),  # FastMCP's
        ("caf\u00e9 {var}%c3%a9%", "caf%C3%A9%20value%C3%A9%25"),  # 3.1: literals are encoded, triplets kept
        ("plain", "plain"),
    ],
)
def test_expansion(template: str, uri: str) -> None:
    assert UriTemplate(template).expand(RFC_VARIABLES) == uri


def test_what_can_be_expanded() -> None:
    template = UriTemplate("x://{a}{?b,c*}")
    assert template.expand({"a": 1, "b": True, "c": [1.5, "z"]}) == "x://1?b=true&c=1.5&c=z"
    assert template.expand({"a": None}) == "x://"
    assert UriTemplate("{+a}").expand({"a": "%2f%zz/"}) == "%2F%25zz/"
    with pytest.raises(TypeError, match="'a' must be text, a number or a list of them, not dict"):
        template.expand({"a": {}})


# ---------------------------------------------------------------- matching


@pytest.mark.parametrize(
    ("template", "uri", "found"),
    [
        ("notes://{name}", "notes://today", {"name": "today"}),
        ("notes://{name}", "notes://caf%C3%A9%20%2b+", {"name": "caf\u00e9 ++"}),
        ("notes://{name}", "notes://caf\u00e9", {"name": "caf\u00e9"}),
        ("notes://{name}", "notes://", {"name": ""}),
        ("notes://{name}", "notes://a/b", None),
        ("notes://{name}", "notes://a?b", None),
        ("notes://{name}", "notes://a#b", None),
        ("notes://{name}", "notes:/a", None),
        ("notes://{name}", "Notes://a", None),
        ("notes://{name}", "notes://%ff", None),  # no UTF-8
        ("notes://{name}", "notes://%C3", None),
        ("notes://{name}", "notes://%zz", {"name": "%zz"}),
        ("notes://{name}", "notes://a,b&c:d@e", {"name": "a,b&c:d@e"}),
        ("notes://{name}.md", "notes://a.md.md", {"name": "a.md"}),
        ("notes://{name}.md", "notes://.md", {"name": ""}),
        ("notes://{name}.md", "notes://md", None),
        ("users://{id}/posts/{post}", "users://7/posts/9", {"id": "7", "post": "9"}),
        ("users://{id}/posts/{post}", "users://7/posts", None),
        ("users://{id}/posts/{post}", "users://7/posts/9/10", None),
        ("{a}-{b}", "x-y-z", {"a": "x-y", "b": "z"}),
        ("{a}--{b}", "x---z", {"a": "x-", "b": "z"}),
        ("{x,y}", "1,2", {"x": "1", "y": "2"}),
        ("{x,y}", "1,2,3", None),
        ("file://docs/{+path}", "file://docs/a/b.txt", {"path": "a/b.txt"}),
        ("file://docs/{+path}", "file://docs/a%2Fb", {"path": "a/b"}),
        ("file://docs/{+path}", "file://docs/a?x", None),
        ("file://{+path}/{name}.txt", "file://a/b/c.txt", {"path": "a/b", "name": "c"}),
        ("file://{user}/{+path}", "file://u/a/b", {"user": "u", "path": "a/b"}),
        ("file://{user}/{+path}/v/{n}", "file://u/a/v/b/v/1", {"user": "u", "path": "a/v/b", "n": "1"}),
        ("file://{a}-{b}/{+path}", "file://x-y-z/p-q", {"a": "x", "b": "y-z", "path": "p-q"}),
        ("{+path}{.ext}", "a/b.c.txt", {"path": "a/b.c", "ext": "txt"}),
        ("page{#at}", "page#a/b?c#d", {"at": "a/b?c#d"}),
        ("files://{path*}", "files://a/b/c", {"path": "a/b/c"}),
        ("files://{path*}", "files://", None),
        ("files://{path*}/raw", "files://a/b/raw", {"path": "a/b"}),
        ("files:{/path*}", "files:/a/b%20c", {"path": ["a", "b c"]}),
        ("files:{/path*}", "files:", {"path": []}),
        ("files:{/path*}", "files:a", None),
        ("repo://{owner}{/path*}", "repo://me/a/b", {"owner": "me", "path": ["a", "b"]}),
        ("repo://{owner}{/path*}", "repo://me", {"owner": "me", "path": []}),
        ("www{.dom*}", "www.example.com", {"dom": ["example", "com"]}),
        ("x{.a}", "x.b", {"a": "b"}),
        ("x{.a}", "x.b.c", None),
        ("x{/a,b}", "x/1/2", {"a": "1", "b": "2"}),
        ("x{;a,b}", "x;a=1;b", {"a": "1", "b": ""}),
        ("x{;a}", "x;ab", None),
        ("x{;a*}", "x;a=1;a;a=2", {"a": ["1", "", "2"]}),
        ("x{;a*}", "x;a=1;b=2", None),
        ("logs://{service}{?since,level}", "logs://api", {"service": "api"}),
        ("logs://{service}{?since,level}", "logs://api?level=e", {"service": "api", "level": "e"}),
        (
            "logs://{service}{?since,level}",
            "logs://api?level=e&other=1&since=a%20b+c&since=2#part",
            {"service": "api", "level": "e", "since": "a b+c"},
        ),
        ("logs://{service}{?since,level}", "logs://api?level=", {"service": "api", "level": ""}),
        ("logs://{service}{?since,level}", "logs://api?level", {"service": "api", "level": ""}),
        ("logs://{service}{?since,level}", "logs://api?%6cevel=e", {"service": "api"}),
        ("logs://{service}{?since}", "logs://api?since=%ff", None),
        ("logs://api{?since}{&level}", "logs://api?level=e", {"level": "e"}),
        ("logs://api{?tag*}", "logs://api?tag=a&x=1&tag=b", {"tag": ["a", "b"]}),
        ("logs://api{?tag*}", "logs://api", {}),
        ("find://x?q={q}&n={n}", "find://x?q=a&n=1", {"q": "a", "n": "1"}),
        ("find://x?f=1{&q}", "find://x?f=1&q=a", {"q": "a"}),
        ("find://x?f=1{&q}", "find://x?q=a&f=1", None),
        ("find://x{?q}/end", "find://x?q=a/end", {"q": "a"}),
        ("find://x#{?q}", "find://x#?q=a", {"q": "a"}),
        ("u://{user-id}{?sort-by}", "u://7?sort-by=name", {"user_id": "7", "sort_by": "name"}),
        ("f://caf\u00e9/{x}", "f://caf\u00e9/a\u00e9", {"x": "a\u00e9"}),
        ("f://caf\u00e9/{x}", "f://caf%c3%a9/a", {"x": "a"}),
        ("f://caf%c3%a9/{x}", "f://caf%C3%A9/a", {"x": "a"}),
        ("f://my file/{x}", "f://my%20file/a", {"x": "a"}),
        ("f://my%20file/{x}{?q}", "f://my%20file/a?q=b%20c", {"x": "a", "q": "b c"}),
        ("fixed", "fixed", {}),
        ("fixed", "fixed2", None),
        ("ab{x}ba", "aba", None),  # head and tail must not overlap
    ],
)
def test_matching(template: str, uri: str, found: dict[str, Any] | None) -> None:
    assert UriTemplate(template).match(uri) == found


def test_what_a_template_tells() -> None:
    template = UriTemplate("logs://{service}/{user-id}{?since}{&level*}")
    assert template.names == ("service", "user_id", "since", "level")
    assert template.optional_names == {"since", "level"}
    assert template.prefix == "logs://"
    assert repr(template) == "UriTemplate('logs://{service}/{user-id}{?since}{&level*}')"


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("x/{a", "position 2: '{' without a '}'"),
        ("x/a}", "position 3: '}' without a '{'"),
        ("{a{b}}", "position 0: '{' without a '}'"),
        ("{}", "position 1: '' is no variable name"),
        ("{a,}", "position 3: '' is no variable name"),
        ("{a b}", "position 2: 'a b' is no variable name"),
        ("{.}", "position 2: '' is no variable name"),
        ("{a.}", "'a.' is no variable name"),
        ("{a..b}", "'a..b' is no variable name"),
        ("{a**}", "position 2: 'a**' is no variable name"),
        ("{x:3}", "position 2: a prefix like {x:3} cannot be matched"),
        ("{=x}", "position 1: the operator '=' is reserved"),
        ("{a}/{a}", "the variable 'a' is there twice"),
        ("{a-b}/{a_b}", "the variable 'a_b' is there twice"),
        ("{a}{b}", "position 3: nothing tells where 'a' and 'b' divide"),
        ("{+a}{b}", "nothing tells where 'a' and 'b' divide"),
        ("{.a}{.b*}{c}", "nothing tells where 'b' and 'c' divide"),
        ("{a}{.b*}", "nothing tells where 'a' and 'b' divide"),
        ("{+a}/{+b}", "both 'a' and 'b' may take several segments"),
        ("{a*}/{/b*}", "both 'a' and 'b' may take several segments"),
        ("{?a*}/x", "position 0: a repeated parameter can be matched only at the end"),
        ("x" * 9_000, "at most 8192 characters"),
        ("/".join(f"{{v{n}}}" for n in range(257)), "at most 256 variables"),
    ],
)
def test_what_is_no_template(template: str, told: str) -> None:
    with pytest.raises(RegistrationError) as error:
        UriTemplate(template)
    assert told in str(error.value)


# ---------------------------------------------------------------- the guard


@pytest.mark.parametrize(
    "uri",
    [
        "f://d/..",
        "f://d/%2e%2e",
        "f://d/%2E.",
        "f://d/a%2fb",
        "f://d/a%5cb",
        "f://d/..%5c..%5cetc",
        "f://d/%2fetc",
        "f://d/a%00",
        "f://d/C:",
        "f://d/c:%5cwindows",
    ],
)
def test_a_simple_variable_is_one_plain_segment(uri: str) -> None:
    assert UriTemplate("f://d/{x}").match(uri) is None
    assert UriTemplate("f://d{/x*}").match(uri) is None
    assert UriTemplate("f://d/{x}", unguarded=["x"]).match(uri) is not None


@pytest.mark.parametrize(
    "value",
    [
        "..",
        "a/../b",
        "a/..",
        "../b",
        "a/%2e%2e/b",
        "a%2f..%2fb",
        "a%5c..",
        "/etc",
        "%2Fetc",
        "\\etc",
        "a/%00",
    ],
)
@pytest.mark.parametrize("template", ["f://d/{+x}", "f://d/{x*}", "f://d/{?x}"])
def test_a_path_stays_below(template: str, value: str) -> None:
    uri = f"f://d/?x={value}" if "?" in template else f"f://d/{value}"
    assert UriTemplate(template).match(uri) is None
    assert UriTemplate(template, unguarded={"x"}).match(uri) is not None


@pytest.mark.parametrize(
    "value", ["a/b", "1.0..2.0", "...", "a..", ".hidden", ".", "a//b", "ab:c", "%252e%252e"]
)
def test_what_only_looks_like_it(value: str) -> None:
    assert UriTemplate("f://d/{+x}").match(f"f://d/{value}") is not None


def test_unguarded_must_name_a_variable() -> None:
    with pytest.raises(RegistrationError, match="no variable 'y' that could be left unguarded"):
        UriTemplate("{x}", unguarded=["y"])


# ---------------------------------------------------------------- expand, then match

segment = st.text(max_size=12).filter(lambda text: not is_unsafe(text, slashes=False))
path = st.text(alphabet="ab./%\u00e9 ~-_", max_size=20).filter(lambda text: not is_unsafe(text, slashes=True))
unreserved_free = st.text(alphabet="abc\u00e9 /%+&=?#,;", max_size=8)


def no_surrogates(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


@given(segment.filter(no_surrogates), segment.filter(no_surrogates))
def test_segments_come_back(a: str, b: str) -> None:
    template = UriTemplate("x://{a}/of/{b}")
    assert template.match(template.expand({"a": a, "b": b})) == {"a": a, "b": b}


@given(path, segment.filter(no_surrogates))
def test_paths_come_back(a: str, b: str) -> None:
    assume("%" not in a)  # {+a} keeps what looks encoded
    for text in ("x://{+a}/of/{b}", "x://{b}/of/{+a}", "x://{b}/of/{a*}"):
        template = UriTemplate(text)
        assume(a or "*" not in text)
        assert template.match(template.expand({"a": a, "b": b})) == {"a": a, "b": b}


@given(st.lists(segment.filter(no_surrogates), max_size=5))
def test_lists_come_back(values: list[str]) -> None:
    template = UriTemplate("x:{/a*}/end")
    assert template.match(template.expand({"a": values})) == {"a": values}
    template = UriTemplate("x:{;a*}")
    assert template.match(template.expand({"a": values})) == {"a": values}
    template = UriTemplate("x:{?a*}")
    assert template.match(template.expand({"a": values})) == ({"a": values} if values else {})


@given(st.dictionaries(st.sampled_from("abc"), unreserved_free), st.permutations("abc"))
def test_queries_come_back_in_any_order(values: dict[str, str], order: list[str]) -> None:
    assume(not any(is_unsafe(value, slashes=True) for value in values.values()))
    uri = UriTemplate(f"x://y{{?{','.join(order)}}}").expand(values)
    assert UriTemplate("x://y{?a,b,c}").match(uri) == values


ANY = ["x{a}", "{a}/{b}", "{+a}.{b}", "{a}{/b*}", "{/a*}", "{;a*}", "{a}{?b}", "{#a}", "\u00e9{a}"]


@given(
    st.text(max_size=60),
    st.sampled_from(
        ["x{a}", "{a}/{b}", "{+a}.{b}", "{a}{/b*}", "{/a*}", "{;a*}", "{a}{?b}", "{#a}", "\u00e9{a}"]
    ),
)
def test_any_text_matches_or_not(uri: str, template: str) -> None:
    made = UriTemplate(template)
    found = made.match(uri)
    assert found is None or set(made.names) - made.optional_names <= found.keys() <= set(made.names)


# ---------------------------------------------------------------- time


@pytest.mark.parametrize(
    ("template", "uri"),
    [
        ("{a}-{b}-{c}-{d}-{e}", "-" * (URI_CHARS_MAX - 1) + "/"),
        ("{+p}a{b}", "a" * (URI_CHARS_MAX - 1) + "/"),
        ("{+p}/{a}-{b}-{c}", "/-" * (URI_CHARS_MAX // 2 - 1) + "?"),
        ("{a}-{b}-{c}/{+p}", "-" * URI_CHARS_MAX),
        ("{/p*}/x", "/" * URI_CHARS_MAX),
        ("x{?a*}", "x?" + "a&" * (URI_CHARS_MAX // 2 - 1)),
        ("{;p*}", ";p" * (URI_CHARS_MAX // 2)),
    ],
)
def test_no_uri_takes_long(template: str, uri: str) -> None:
    made = UriTemplate(template)
    start = time.process_time()
    made.match(uri)
    assert time.process_time() - start < 0.5  # it takes 1 to 20 ms; what goes back and forth takes minutes


def test_too_long_a_uri() -> None:
    assert UriTemplate("{+x}").match("a" * URI_CHARS_MAX) is not None
    assert UriTemplate("{+x}").match("a" * (URI_CHARS_MAX + 1)) is None
    assert TemplateTable([(UriTemplate("{+x}"), 1)]).find("a" * (URI_CHARS_MAX + 1)) is None


# ---------------------------------------------------------------- the table


def table(*templates: str) -> TemplateTable[str]:
    return TemplateTable((UriTemplate(text), text) for text in templates)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("uri", "template"),
    [
        ("a://x/y", "a://x/{b}"),
        ("a://x/y/z", "a://{+p}"),
        ("a://z/y", "a://{a}/{b}"),
        ("a://z/fixed", "a://{a}/fixed"),
        ("a://z", "a://{a}"),
        ("bb://z", "{+any}"),
        ("bb://z?q", None),
    ],
)
def test_the_most_specific_one_is_found(uri: str, template: str | None, turned: bool) -> None:
    texts = ["{+any}", "a://{+p}", "a://{a}", "a://{a}/{b}", "a://{a}/fixed", "a://x/{b}"]
    found = table(*(texts[::-1] if turned else texts)).find(uri)
    assert (found and found[0]) == template


def test_of_equals_the_first_one() -> None:
    one, other = UriTemplate("a://{x}"), UriTemplate("a://{y}")
    assert TemplateTable([(one, 1), (other, 2)]).find("a://z") == (1, {"x": "z"})
    assert TemplateTable([(other, 2), (one, 1)]).find("a://z") == (2, {"y": "z"})


def test_an_unsafe_value_does_not_fall_through_to_a_laxer_template() -> None:
    lax = UriTemplate("a://{+any}", unguarded=["any"])
    found = TemplateTable([(lax, "lax"), (UriTemplate("a://files/{+path}"), "strict")])
    assert found.find("a://files/../x") is None
    assert found.find("a://other/../x") == ("lax", {"any": "other/../x"})


def test_literals_that_must_be_encoded() -> None:
    found = table("a://caf\u00e9/{x}", "a://plain/{x}")
    assert found.find("a://caf%c3%a9/1") == ("a://caf\u00e9/{x}", {"x": "1"})
    assert found.find("a://caf\u00e9/1") == ("a://caf\u00e9/{x}", {"x": "1"})
    assert found.find("a://plain/\u00e9 %c3%a9") == ("a://plain/{x}", {"x": "\u00e9 \u00e9"})


def test_an_empty_table() -> None:
    assert table().find("a://b") is None
