"""Secrets stay here: which keys name one, and where a secret may hide."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import http.client
import io
import json

from typing import Any, NamedTuple

import pytest

from hypothesis import given
from hypothesis import strategies as st

from posthog_logging.events import jsonable
from posthog_logging.events.scrub import SCRUBBED, Scrubber, names_secret


#: Keys of real programs, whose values are secrets.
SECRET = """
password Password PASSWORD pAsSwOrD passWord pass_word pass-word pass.word
PassWord user_password userPassword UserPassword USER_PASSWORD user-password user.password
old_password new_password newPassword password_confirmation passwordConfirmation
password_again password1 password2 password_hash passwordHash hashed_password db_password
DB_PASSWORD databasePassword smtp.password ldap-password root_password temporary_password
password_plain passwd Passwd PASSWD user_passwd userPasswd mysql-passwd pass_wd passwd_2
shadow.passwd secret Secret SECRET secret_key secretKey SECRET_KEY secret-key secret.key
client_secret clientSecret CLIENT_SECRET client-secret ClientSecret client.secret app_secret
appSecret webhook_secret webhookSecret signing-secret shared_secret jwt_secret jwtSecret
secret_access_key aws_secret_access_key AwsSecretAccessKey totp_secret secretValue my_secret
_secret $secret secret1 api_key apiKey ApiKey APIKey APIKEY API_KEY api-key Api-Key api.key
apikey Apikey x-api-key X-Api-Key X-API-KEY x_api_key xApiKey stripe_api_key stripeApiKey
STRIPE_API_KEY google.api.key openai-api-key api_key_2 api_key_test apiKeyLive
posthog_apikey user_apikey datadog.apikey authorization Authorization AUTHORIZATION
proxy-authorization Proxy-Authorization PROXY_AUTHORIZATION proxyAuthorization
headers.authorization headers[authorization] http_authorization HTTP_AUTHORIZATION
authorization_header authorizationHeader http.request.header.authorization
authorization_code authorisation x-amz-authorization cookie Cookie COOKIE set-cookie
Set-Cookie SET_COOKIE setCookie set_cookie SetCookie set.cookie set-cookie2 http_cookie
HTTP_COOKIE request.headers.cookie session_cookie sessionCookie cookie_value raw-cookie
headers[cookie] private_key privateKey PRIVATE_KEY private-key PrivateKey private.key
privatekey ssh_private_key sshPrivateKey rsa-private-key private_key_pem privateKeyPem
tls.private_key access_token accessToken ACCESS_TOKEN access-token AccessToken access.token
accesstoken oauth_access_token oauthAccessToken oauth2_access_token x-access-token
github_access_token user.access_token access_token_1 fb-access-token refresh_token
refreshToken REFRESH_TOKEN refresh-token RefreshToken refresh.token refreshtoken
oauth_refresh_token google.refreshToken refresh_token_new session_token sessionToken
SESSION_TOKEN session-token SessionToken session.token sessiontoken aws_session_token
AWSSessionToken __secure-next-auth.session-token csrf CSRF csrf_token csrfToken CSRF_TOKEN
csrf-token csrftoken CsrfToken x-csrf-token X-CSRFToken X-CSRF-Token _csrf _csrf_token
csrfmiddlewaretoken csrf_nonce XSRF-TOKEN x-xsrf-token
""".split()

#: The same names as others spell them.
SPELT = [
    "\uff30\uff21\uff33\uff33\uff37\uff2f\uff32\uff24",  # full width
    "\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44",
    "\uff41\uff50\uff49\uff3f\uff4b\uff45\uff59",
    "\U0001d429\U0001d41a\U0001d42c\U0001d42c\U0001d430\U0001d41d",  # mathematical letters
    "\u24e2\u24d4\u24d2\u24e1\u24d4\u24e3",  # letters in circles
    "pass\u200bword",  # zero width, and others that nobody sees
    "se\u200bcret",
    "user\u200bpassword",
    "\ufeffpassword",
    "pass\u00adwd",
    "access\u2060_token",
    "c\u200dookie",
    "api\u3164key",
    "private\u115fkey",
    "\u202esecret",
    "password\0",
    "pass\x1bword",
    "sec\U000e0020ret",
    "AP\u0130_KEY",  # Turkish capitals and small letters
    "COOK\u0130E",
    "CL\u0130ENT_SECRET",
    "PR\u0130VATE_KEY",
    "AUTHOR\u0130ZAT\u0130ON",
    "SESS\u0130ON_TOKEN",
    "ap\u0131_key",
    "cook\u0131e",
    "pr\u0131vate_key",
    "access token",
    "My Password",
    "the API key",
]

#: Keys of real programs that only look like it, or speak about a secret.
HARMLESS = """
token tokens Token TOKEN $token token_id token_count tokenCount tokens_used max_tokens
maxTokens MAX_TOKENS prompt_tokens completion_tokens total_tokens input_tokens outputTokens
access_tokens accessTokens refresh_tokens session_tokens csv_tokens tokenizer tokenized
token_type device_token push_token pushToken token_expires_at tokenised detokenize
cancellation_token continuation-token page_token next_page_token nextPageToken token_bucket
token_limit $session_id session_id sessionId session session_start session_duration
$session_duration $session_recording session.count sessions passwordless passwordless_login
passwordlessLogin password_changed_at passwordChangedAt password_updated_at has_password
hasPassword is_password_valid password_strength passwordStrength password_length
password_expired password_required password_attempts password_policy password_age
needs_password_reset without_password password_score passwords bypass bypass_cache compass
compass_words passenger passengers passage pass passed passes passport passport_country
pass_rate boarding_pass passive passkey_used word words keyword keywords password_expires_in
swordfish crossword secretary secretariat secretion secretive secrets secretly
undersecretary secretaries api api_version apiVersion api_name api_calls api_latency_ms
api.method apis apiary key keys keyboard keyboard_layout key_count keypad monkey donkey_kong
turkey hockey keyframe primary_key primaryKey foreign_key public_key publicKey public-key
sort_key cache_key cacheKey partition_key routing_key key_id ssh_key idempotency_key
storage_key lookup.key api_keys apiKeys apikeys keynote therapi_key author authors authority
authorized authorizer authorize is_authorized authorization_status authorization_type
authorizations authorised_by unauthorized coauthor auth auth_method authMethod auth.provider
oauth_provider authentication authenticated cookies cookies_accepted cookie_consent
cookieConsent cookie_banner cookie_policy cookie_count cookie_policy_version has_cookies
cookiecutter cookie_type rookie cookies_enabled cookie_consent_version private privately
is_private privacy_level private_room private_message privateer private_keys
private_keyboard privates access access_level accessLevel access_count accessories
access_granted access_token_count access_token_expires_in access_token_expires_at
access_token_type refresh refresh_rate refreshRate refresh_count refreshed
refresh_token_expires_at client client_id clientId client_version client_name clients
secretariat_id csr csv csv_rows csr_country csrf_enabled csrf_failures scarf surf_spot email
name username user_name first_name phone ip address iban zip postcode credit_card movie_id
category price currency plan amount seats $current_url $set $groups utm_source
distinct_id level logger
""".split()


#: Texts with a secret, and what is sent of them.
TEXTS = {
    "https://ada:hunter2@example.org/x": "https://ada:[scrubbed]@example.org/x",
    "postgres://ada:h/un#ter2@db/shop?a=b@c": "postgres://ada:[scrubbed]@db/shop?a=b@c",
    "redis://:hunter2@cache:6379/0": "redis://:[scrubbed]@cache:6379/0",
    "amqp://u:a@b@host//": "amqp://u:[scrubbed]@host//",
    "see ftp://u:p@a.org, //u:p@b.org": "see ftp://u:[scrubbed]@a.org, //u:[scrubbed]@b.org",
    "/cb?access_token=abc&page=2": "/cb?access_token=[scrubbed]&page=2",
    "/cb?access%5Ftoken=abc": "/cb?access%5Ftoken=[scrubbed]",
    "https://a.org/#access_token=abc&x=1": "https://a.org/#access_token=[scrubbed]&x=1",
    "user=ada&password=hunter2": "user=ada&password=[scrubbed]",
    "https://a.org/?next=%2Fin%3Fpassword%3Dx": "https://a.org/?next=%2Fin%3Fpassword%3D[scrubbed]",
    '{"password": "x", "n": [1, {"apiKey": 2}]}': (
        '{"password":"[scrubbed]","n":[1,{"apiKey":"[scrubbed]"}]}'
    ),
    ' [{"secret": null}]': '[{"secret":"[scrubbed]"}]',
    '"{\\"secret\\": 1}"': '"{\\"secret\\":\\"[scrubbed]\\"}"',
    '{"inner": "{\\"cookie\\": \\"a=b\\"}"}': '{"inner":"{\\"cookie\\":\\"[scrubbed]\\"}"}',
    "{'password': 'hunter2', 'a': 1}": "{'password': '[scrubbed]', 'a': 1}",
    '{"password": "hunter2", "a": [cut': '{"password": "[scrubbed]", "a": [cut',
}

#: Texts that hold none.
PLAIN_TEXTS = [
    "https://example.org:8080/a@b?c=d",
    "https://example.org/a:b@c",
    "https://ada@example.org/",
    "mailto:ada@example.org",
    "ada@example.org // bob:x@example.org",
    "?utm_source=news&token=5&max_tokens=7",
    "['password', 'email']",
    "[('name', 'password'), ('password',)]",
    "a == b",
    "{not json}",
    "[1, 2",
    "{}",
    "",
    "password",
    "https://a.org/?next=%2Fin%3Fpage%3D2",
]

#: Prose with a secret: what a log line or the message of an exception looks like.
PROSE = {
    "login failed: password=hunter2 for ada": "login failed: password=[scrubbed] for ada",
    "password: hunter2, ada": "password: [scrubbed], ada",
    "Authorization: Bearer abc.def": "Authorization: [scrubbed]",
    "Cookie: a=b; c=d\nHost: x": "Cookie: [scrubbed]\nHost: x",
    "headers={'Cookie': 'a=b; c=d'}": "headers={'Cookie': '[scrubbed]'}",
    "User(name='a', password='b\\'c', n=1)": "User(name='a', password='[scrubbed]', n=1)",
    'got b\'{"api_key": "abc"}\'': 'got b\'{"api_key": "[scrubbed]"}\'',
    "secret=[1, 2] n=3": "secret=[scrubbed] n=3",
    "password=Secret('x', 1) n=3": "password=[scrubbed] n=3",
    "GET /x?access_token=abc HTTP": "GET /x?access_token=[scrubbed] HTTP",
    "cannot reach amqp://u:p@host": "cannot reach amqp://u:[scrubbed]@host",
    "client_secret => abc": "client_secret => [scrubbed]",
    "pass\u200bword=abc": "pass\u200bword=[scrubbed]",
    "[('Authorization', 'Bearer a b'), ('n', 1)]": "[('Authorization', '[scrubbed]'), ('n', 1)]",
    "((b'host', b'x'), (b'cookie', b'a=b; c'))": "((b'host', b'x'), (b'cookie', b'[scrubbed]'))",
    '{"h": [["Api-Key", "x"], ["n": 1]]': '{"h": [["Api-Key", "[scrubbed]"], ["n": 1]]',
}


@dataclasses.dataclass
class Account:
    """A value with fields."""

    name: str
    password: str


class Header(NamedTuple):
    """A pair that has a class."""

    name: str
    value: str


class Field(enum.Enum):
    """A key that is no string."""

    PASSWORD = "password"
    NAME = "name"


@pytest.fixture
def scrubber() -> Scrubber:
    """The default one."""
    return Scrubber()


def test_the_corpus_is_large() -> None:
    """Two hundred keys of each kind, none twice."""
    assert len(set(SECRET)) == len(SECRET) >= 200
    assert len(set(HARMLESS)) == len(HARMLESS) >= 200


@pytest.mark.parametrize("key", [*SECRET, *SPELT], ids=ascii)
def test_keys_of_secrets(key: str, scrubber: Scrubber) -> None:
    """The value under a key that names a secret is replaced, and counted."""
    assert ({"a": 1, key: SCRUBBED}, 1) == scrubber.scrubbed({"a": 1, key: "hunter2"})
    assert not scrubber.is_harmless({"a": 1, key: "hunter2"})


@pytest.mark.parametrize("key", HARMLESS)
def test_keys_of_others(key: str, scrubber: Scrubber) -> None:
    """A key that only looks like one keeps its value; nothing is copied for that."""
    properties = {"a": 1, key: "hunter2"}
    found, count = scrubber.scrubbed(properties)

    assert (True, 0) == (found is properties, count)
    assert scrubber.is_harmless(properties)


@pytest.mark.parametrize(
    "value", ["x", "", 5, 1.5, None, True, b"x", ["x"], {"x": 1}, Account("a", "b"), object()]
)
def test_values_of_any_type(value: Any, scrubber: Scrubber) -> None:
    """Whatever the secret is, nothing of it is left."""
    assert ({"password": SCRUBBED}, 1) == scrubber.scrubbed({"password": value})


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"a": {"b": [{"secret": 1}]}}, {"a": {"b": [{"secret": SCRUBBED}]}}),
        ({"a": ({"secret": 1}, 2)}, {"a": [{"secret": SCRUBBED}, 2]}),
        ({"$set": {"password": "x", "n": 1}}, {"$set": {"password": SCRUBBED, "n": 1}}),
        ({"a": Account("ada", "x")}, {"a": {"name": "ada", "password": SCRUBBED}}),
        ({"a": {Field.PASSWORD: "x", 1: 2}}, {"a": {"password": SCRUBBED, "1": 2}}),
        ({"a": [("secret", 1), ("b", 2)]}, {"a": [["secret", SCRUBBED], ("b", 2)]}),
        ({"a": [["Authorization", "Bearer x"]]}, {"a": [["Authorization", SCRUBBED]]}),
        ({"a": ((b"cookie", b"a"), (b"b", b"c"))}, {"a": [["cookie", SCRUBBED], ["b", "c"]]}),
        ({"a": {"b": [[["api_key", [1, 2]]]]}}, {"a": {"b": [[["api_key", SCRUBBED]]]}}),
        ({"a": [["b", [("secret", "x")]]]}, {"a": [["b", [["secret", SCRUBBED]]]]}),
        ({"a": {"secret": 1}.items()}, {"a": [["secret", SCRUBBED]]}),
        ({"a": [Header("cookie", "a=b")]}, {"a": [["cookie", SCRUBBED]]}),
        ({"a": '[["cookie", "a=b"]]'}, {"a": '[["cookie","[scrubbed]"]]'}),
        ({"a": b'{"secret": 1}'}, {"a": '{"secret":"[scrubbed]"}'}),
        (
            {"password": SCRUBBED, "a": {"secret": 1}},
            {"password": SCRUBBED, "a": {"secret": SCRUBBED}},
        ),
    ],
    ids=str,
)
def test_at_any_depth(properties: Any, expected: Any, scrubber: Scrubber) -> None:
    """A secret is found inside containers and objects; what was replaced before counts no more."""
    before = repr(properties)

    assert (expected, 1) == scrubber.scrubbed(properties)
    assert before == repr(properties)  # the caller's own objects stay as they are


@pytest.mark.parametrize(
    "value",
    [
        ["password", "email"],
        ("password", "email"),
        [["password", "email", "name"]],
        [["password"], ["email"]],
        [("password", "email"), "name"],
        [("password", "email"), ("a", "b", "c")],
        [[1, "password"], ["password", 1]],
        [],
        [[], []],
        [("password_changed_at", 5), ("token", "x")],
    ],
    ids=str,
)
def test_lists_that_are_no_pairs(value: Any, scrubber: Scrubber) -> None:
    """A pair is one in a list of pairs alone: two names beside each other are no secret."""
    properties = {"a": value}

    assert (properties, 0) == scrubber.scrubbed(properties)


#: One header or variable each, as HAR, HTML forms, Postman, OTLP and AWS write them.
NAMED = {
    "HAR": {"name": "Authorization", "value": "Bearer abc"},
    "HAR, more of it": {"comment": "", "value": "sid=1", "name": "Cookie", "secure": True},
    "a form's field": {"name": "password", "value": "hunter2"},
    "Postman": {"key": "X-Api-Key", "value": "abc", "type": "text"},
    "OTLP": {"key": "http.request.header.authorization", "value": {"stringValue": "Bearer abc"}},
    "AWS": {"Name": "DB_PASSWORD", "Value": "abc"},
    "a tag": {"Key": "client-secret", "Value": ["abc"]},
    "two names": {"name": "the header", "key": "Authorization", "value": "abc"},
    "two names, the other way": {"key": "header", "name": "Authorization", "value": "abc"},
    "two values": {"name": "password", "value": "hunter2", "Value": "hunter2"},
}


@pytest.mark.parametrize("named", NAMED.values(), ids=NAMED)
def test_a_name_beside_its_value(named: dict[str, Any], scrubber: Scrubber) -> None:
    """A value is a secret if another member of its object names it so, wherever it is."""
    values = {"value", "Value"} & {*named}
    clean, count = {**named, **dict.fromkeys(values, SCRUBBED)}, len(values)
    nested = {"har": {"headers": [clean]}}

    assert (clean, count) == scrubber.scrubbed(named)
    assert (nested, count) == scrubber.scrubbed({"har": {"headers": [named]}})
    assert (clean, 0) == scrubber.scrubbed(clean)
    assert not scrubber.is_harmless(named)
    assert scrubber.has_secret(jsonable.encode({"headers": [named]})[1:])
    assert (jsonable.encode(clean).decode(), count) == scrubber.text(
        jsonable.encode(named).decode()
    )


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("{'name': 'Cookie', 'value': 'a=b'}", "{'name': 'Cookie', 'value': '[scrubbed]'}"),
        (
            "bad: {'key': 'X-Api-Key', 'value': \"it's\"}",
            "bad: {'key': 'X-Api-Key', 'value': \"[scrubbed]\"}",
        ),
        (
            'sent {"name": "Authorization", "value": "Bearer a',
            'sent {"name": "Authorization", "value": "[scrubbed]',
        ),
        ("{'name': 'plan', 'value': 'free'}", "{'name': 'plan', 'value': 'free'}"),
    ],
)
def test_a_name_beside_its_value_in_prose(text: str, clean: str, scrubber: Scrubber) -> None:
    """The same in an object's repr, and in JSON that was cut."""
    assert clean == scrubber.text(text)[0]


@pytest.mark.parametrize(
    "named",
    [
        {"name": "plan", "value": "free"},
        {"name": "Authorization", "values": ["x"]},
        {"name": 5, "value": "x"},
        {"name": ["password"], "value": "x"},
        {"title": "password", "value": "x"},
        {"name": "password_changed_at", "value": 5},
        {"value": 9.99, "currency": "EUR"},
    ],
    ids=str,
)
def test_values_that_no_secret_names(named: dict[str, Any], scrubber: Scrubber) -> None:
    """A value stays where its name is harmless, or no text, or where nothing names it."""
    assert (named, 0) == scrubber.scrubbed(named)
    assert ({"a": [named]}, 0) == scrubber.scrubbed({"a": [named]})
    assert scrubber.is_harmless(named)


def test_headers_that_are_no_mapping(scrubber: Scrubber) -> None:
    """What holds headers has their names in JSON, so that the secrets among them are found."""
    werkzeug = pytest.importorskip("werkzeug.datastructures")
    raw = b"Authorization: Basic abc\nAccept: text/html\n\n"
    given = [["Authorization", "Basic abc"], ["Accept", "text/html"]]
    clean = [["Authorization", SCRUBBED], ["Accept", "text/html"]]

    for headers in (werkzeug.Headers(given), http.client.parse_headers(io.BytesIO(raw))):
        assert given == jsonable.jsonable(headers)
        assert ({"headers": clean}, 1) == scrubber.scrubbed({"headers": headers})
        assert scrubber.has_secret(jsonable.snapshot({"headers": headers})[1:])


def test_rules_count_for_named_values() -> None:
    """A further name and a rule for a name replace a value that stands beside that name."""
    scrubber = Scrubber(["iban"], rules={"email": str.upper}.get)
    given = {"a": [{"name": "iban", "value": "x"}, {"name": "email", "value": "ada"}]}

    assert (
        {"a": [{"name": "iban", "value": SCRUBBED}, {"name": "email", "value": "ADA"}]},
        1,
    ) == scrubber.scrubbed(given)


def test_pairs_that_were_scrubbed(scrubber: Scrubber) -> None:
    """What was replaced counts no more, and further names and rules count in pairs as well."""
    properties = {"a": [("password", SCRUBBED), ("iban", "x"), ("email", "ada")]}
    rules = {"email": str.upper}.get

    assert (properties, 0) == scrubber.scrubbed(properties)
    assert (
        {"a": [("password", SCRUBBED), ["iban", SCRUBBED], ["email", "ADA"]]},
        1,
    ) == Scrubber(["iban"], rules=rules).scrubbed(properties)


KEYS = st.sampled_from(["a", "password", "Set-Cookie", "plan", "x-api-key", "csrftoken"])
SCALARS = st.none() | st.integers() | st.sampled_from(["x", "", "a=b", "?secret=1", "[", SCRUBBED])


@given(st.dictionaries(KEYS, SCALARS, min_size=1))
def test_pairs_are_as_objects(members: dict[str, Any]) -> None:
    """A list of pairs loses what an object with the same members loses, encoded or not."""
    scrubber = Scrubber()
    found, count = scrubber.scrubbed({"a": members})
    listed, counted = scrubber.scrubbed({"a": [*members.items()]})

    assert (found["a"], count) == (dict(listed["a"]), counted)
    rest = jsonable.encode({"a": [*members.items()]})[1:]
    assert (count > 0) == scrubber.has_secret(rest)


def test_the_deepest(scrubber: Scrubber) -> None:
    """What is too deep to be sent is cut, and what is within the bound is scrubbed."""
    deep: Any = {"password": "hunter2"}
    for _ in range(100):
        deep = {"password": "hunter2", "a": deep}

    found, count = scrubber.scrubbed(deep)

    assert "hunter2" not in repr(found)
    assert count >= 30


def test_cycles_and_bombs(scrubber: Scrubber) -> None:
    """What has no end, or too many values, comes to an end and leaks nothing."""
    cycle: dict[str, Any] = {"password": "hunter2"}
    cycle["self"] = [cycle, cycle]
    bomb: Any = ["lol", {"password": "hunter2"}]
    for _ in range(12):
        bomb = [bomb] * 10

    for properties in (cycle, {"a": bomb}):
        assert "hunter2" not in repr(scrubber.scrubbed(properties)[0])


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_texts(text: str, scrubber: Scrubber) -> None:
    """Passwords in URLs, parameters of queries and JSON inside strings are found."""
    found, count = scrubber.scrubbed({"a": text, "b": [text]})

    assert {"a": TEXTS[text], "b": [TEXTS[text]]} == found
    assert count >= 2
    assert (found, 0) == scrubber.scrubbed(found)


@pytest.mark.parametrize("text", PLAIN_TEXTS, ids=ascii)
def test_plain_texts(text: str, scrubber: Scrubber) -> None:
    """A text without a secret stays as it is."""
    assert ({"a": text}, 0) == scrubber.scrubbed({"a": text})


@pytest.mark.parametrize("text", PROSE, ids=ascii)
def test_prose(text: str, scrubber: Scrubber) -> None:
    """In a log's text, and in the reports of exceptions, assignments are looked for as well."""
    entry = {"type": "E", "value": text, "frames": [{"context_line": text}]}
    found, count = scrubber.scrubbed({"$exception_list": [entry]})

    assert (PROSE[text], 1) == scrubber.text(text)
    assert 1 == count
    assert PROSE[text] == found["$exception_list"][0]["value"]
    assert text == found["$exception_list"][0]["frames"][0]["context_line"]  # the program's


PAIRS = [["a", "b"]], [["password", 1]], [["a", [["cookie", "x"]]]], ["password", "x"]


@pytest.mark.parametrize(
    "value",
    ["x", {"a": {"secret": 1}}, "[password: x", " [password: x", *PAIRS, *TEXTS, *PLAIN_TEXTS],
    ids=ascii,
)
def test_encoded(value: Any, scrubber: Scrubber) -> None:
    """Of encoded values it is known as much, and the cheap question never says a false no."""
    rest = json.dumps({"a": value}, separators=(",", ":")).encode()[1:]
    secret = scrubber.scrubbed({"a": value})[1] > 0

    assert secret == scrubber.has_secret(rest)
    assert scrubber.may_have_secret(rest + rest) >= secret


@given(st.text(), st.text())
def test_any_text(key: str, value: str) -> None:
    """No key and no text makes it raise, and the second time there is nothing left."""
    scrubber = Scrubber()
    found, _ = scrubber.scrubbed({key: value, "$exception_list": [value]})
    prose, _ = scrubber.text(value)

    assert (found, 0) == scrubber.scrubbed(found)
    assert (prose, 0) == scrubber.text(prose)


def test_long_texts(scrubber: Scrubber) -> None:
    """Time grows with the length alone: none of these takes a second."""
    for piece in (
        "//a:",
        "?a=",
        "password=",
        "a:",
        '"',
        "{",
        "[",
        "\\",
        "%3D=",
        "x" * 50 + " ",
        "[('a', ",
    ):
        scrubber.scrubbed({"a": piece * 50_000})
        scrubber.text(piece * 20_000)


@pytest.mark.parametrize(
    "text", ["[" * 200 + '{"password": "x"}' + "]" * 200, f'[{"{}," * 20_000}{{"secret": "x"}}]']
)
def test_large_json_in_a_text(text: str, scrubber: Scrubber) -> None:
    """JSON that is too deep or too large to be taken apart is read as prose."""
    for found in (scrubber.text(text)[0], scrubber.scrubbed({"a": text})[0]["a"]):
        assert '"x"' not in found
        assert SCRUBBED in found


def test_many_keys(scrubber: Scrubber) -> None:
    """What is remembered of keys is bounded."""
    for number in range(4_500):
        scrubber.is_harmless({f"key{number}": 1})
    for number in range(4_500):
        scrubber.is_harmless({f"{number}{'x' * 200}": 1})

    assert len(scrubber.harmless) <= 4_096


def test_further_names() -> None:
    """Names of the program's own count beside the built-in ones, in any spelling."""
    scrubber = Scrubber(["iban", "creditCard", ""])
    found, count = scrubber.scrubbed({"user_IBAN": 1, "credit-card": 2, "secret": 3, "card": 4})

    assert {"user_IBAN": SCRUBBED, "credit-card": SCRUBBED, "secret": SCRUBBED, "card": 4} == found
    assert 3 == count


def test_a_callable_decides() -> None:
    """True makes a key a secret, False does not, None leaves it to the names; failure is True."""

    def decide(key: str) -> bool | None:
        return {"a": True, "cookie": False, "secret": None}[key]

    keys = ("a", "cookie", "secret", "fails")

    found, _ = Scrubber(decide=decide).scrubbed(dict.fromkeys(keys, 1))

    assert {"a": SCRUBBED, "cookie": 1, "secret": SCRUBBED, "fails": SCRUBBED} == found


def test_times_become_json(scrubber: Scrubber) -> None:
    """A value that is no JSON is made so, as it would be when it is sent."""
    assert ({"at": "2024-01-02"}, 0) == scrubber.scrubbed({"at": dt.date(2024, 1, 2)})
    assert not names_secret("at")
