"""Where alerts go: Slack, mail, Teams, PagerDuty, webhooks, whatever Apprise has an address for.

An address holds what opens it. None is ever shown, logged or stored: a channel is known by its
kind and its place in the configuration, and by a digest.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from ml_platform.alerts.condition import Kind, Severity
from ml_platform.errors import AlertsMisconfigured
from ml_platform.masking import masked
from ml_platform.settings import Settings
from ml_platform.spec.use_case import digest

if TYPE_CHECKING:
    from apprise import NotifyBase

LONGEST_SECONDS = 30
"""After this long a channel counts as dead."""
SHORTEST_SECRET = 3
SEVERITY_TAGS = frozenset(get_args(Severity))
KIND_TAGS = frozenset(get_args(Kind))

Tone = Literal["info", "success", "warning", "failure"]
TONES: dict[Severity, Tone] = {"info": "info", "warning": "warning", "critical": "failure"}


@dataclass(frozen=True)
class Message:
    """What one channel is sent, and by what it is routed there."""

    use_case: str
    kinds: frozenset[Kind]
    severity: Severity
    title: str
    body: str
    is_all_clear: bool = False


@dataclass(frozen=True)
class Channel:
    """One address that messages can be sent to."""

    id: str
    """Digest that names the channel in the lake."""
    name: str
    """For people: the service, and its place in the configuration."""
    tags: frozenset[str]
    """Use cases, severities and kinds that it is for; without any of these, for all of them."""
    service: "NotifyBase" = field(repr=False)
    settings: Settings = field(repr=False)
    """Whose passwords are masked in what is said of a failure."""

    def wants(self, message: Message) -> bool:
        """Whether the tags let a message through.

        A channel tagged `critical` gets what is critical, one tagged `flight_delays` what is about
        that use case, one tagged both what is both.
        """
        return (
            (not self.use_cases or message.use_case in self.use_cases)
            and (not self.tags & SEVERITY_TAGS or message.severity in self.tags)
            and (not self.tags & KIND_TAGS or bool(self.tags & message.kinds))
        )

    @property
    def use_cases(self) -> frozenset[str]:
        """Tags that are neither severities nor kinds: names of use cases."""
        return self.tags - SEVERITY_TAGS - KIND_TAGS

    def send(self, message: Message) -> str | None:
        """Deliver a message; why that failed, or None where it did not."""
        from apprise import Apprise, NotifyFormat

        sender = Apprise()
        sender.add(self.service)
        result = sender.notify(
            title=message.title,
            body=message.body,
            notify_type="success" if message.is_all_clear else TONES[message.severity],
            body_format=NotifyFormat.TEXT,
            timeout=LONGEST_SECONDS,
        )
        if result:
            return None
        said = next((entry.message for entry in result.logs()), result.status.name.lower())
        return self._without_address(said.split("\n")[0])

    def _without_address(self, text: str) -> str:
        # Services name hosts, and some the whole address, in what they say of a failure.
        address = self.service.url(privacy=False)
        for mark in "/?&=@:,%+ ":
            address = address.replace(mark, "\n")
        for part in sorted(set(address.split("\n")), key=len, reverse=True):
            if len(part) >= SHORTEST_SECRET:
                text = text.replace(part, "…")
        return masked(text, self.settings)


def try_channels(
    channels: Iterable[Channel], use_case: str | None, person: str
) -> list[tuple[Channel, str | None]]:
    """Send a test message to each channel; with each why it did not arrive, or None where it did.

    use_case: as if about it, so that channels for other use cases are left out.
    """
    about = f" of {use_case}" if use_case else ""
    return [
        (
            channel,
            channel.send(
                Message(
                    use_case=use_case or "",
                    kinds=frozenset(),
                    severity="info",
                    title=f"Test of the alerts{about}",
                    body=f"{person} tries the channels: alerts{about} arrive here.",
                )
            ),
        )
        for channel in channels
        if not use_case or not channel.use_cases or use_case in channel.use_cases
    ]


@dataclass(frozen=True)
class Channels:
    """The channels of a deployment, and what of its configuration cannot be used."""

    channels: tuple[Channel, ...] = ()
    problems: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Channel]:
        return iter(self.channels)

    @classmethod
    def of(cls, settings: Settings) -> "Channels":
        """What the setting `alerts` names; AlertsMisconfigured where its file cannot be read."""
        value = settings.alerts.get_secret_value().strip() if settings.alerts else ""
        if not value:
            return cls()
        # Apprise speaks to its logger too; its words may hold what an address holds.
        logger = logging.getLogger("apprise")
        logger.propagate = False
        logger.addHandler(logging.NullHandler())
        if "://" in value:
            services, problems = _from_addresses(value)
        else:
            services, problems = _from_file(Path(value))
        return cls(tuple(_named(services, settings)), tuple(problems))


def _from_addresses(value: str) -> tuple[list["NotifyBase"], list[str]]:
    from apprise import Apprise
    from apprise.utils.parse import parse_urls

    services, problems = [], []
    # A comma also stands within addresses, between those that a mail goes to.
    for place, address in enumerate(parse_urls(value), start=1):
        service = Apprise.instantiate(address)
        if service is None:
            kind = address.partition("://")[0]
            problems.append(
                f"ML_PLATFORM_ALERTS: address {place}, which begins with '{kind}://', is none that "
                "Apprise knows"
            )
        else:
            services.append(service)
    return services, problems


def _from_file(path: Path) -> tuple[list["NotifyBase"], list[str]]:
    from apprise import AppriseConfig

    if not path.is_file():
        raise AlertsMisconfigured(
            "ML_PLATFORM_ALERTS is neither an Apprise address, such as "
            "mailto://user:password@example.com, nor a file that is there"
        )
    config = AppriseConfig()
    config.add(str(path))
    services = list(config.services())
    if not services:
        raise AlertsMisconfigured(
            f"{path} names no address that Apprise knows; a line reads `tag = address`, or see "
            "Apprise's documentation of its YAML"
        )
    return services, []


def _named(services: list["NotifyBase"], settings: Settings) -> Iterator[Channel]:
    seen: Counter[str] = Counter()
    for place, service in enumerate(services, start=1):
        # Without its secrets, so that the digest, which is stored, says nothing about them.
        public = service.url(privacy=True)
        seen[public] += 1
        yield Channel(
            id=digest(public, seen[public]),
            name=f"{service.service_name} (address {place})",
            tags=frozenset(str(tag) for tag in service.tags),
            service=service,
            settings=settings,
        )
