"""E-mail: a message as text, sent through a mail server."""

import smtplib
import ssl
from collections.abc import Mapping
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime
from typing import Final

from lockstep.alerts.message import Message
from lockstep.alerts.posting import within
from lockstep.alerts.settings import Receiver

_PORTS: Final = {"starttls": 587, "tls": 465, "none": 25}


def mail_of(receiver: Receiver, message: Message) -> EmailMessage:
    """Return the e-mail; its Message-ID is the same for the same news."""
    mail = EmailMessage(SMTP_POLICY)
    mail["Subject"] = " ".join(message.title.split())
    mail["From"] = receiver.sender
    mail["To"] = ", ".join(receiver.to)
    mail["Date"] = format_datetime(message.at)
    mail["Message-ID"] = f"<{message.id}@lockstep.invalid>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(message.text())
    return mail


def send_mail(receiver: Receiver, message: Message, environment: Mapping[str, str]) -> str | None:
    """Send a message; return None if the server took it, else why not, without any secret."""
    login = None
    if receiver.user_env is not None and receiver.password_env is not None:
        login = (
            environment.get(receiver.user_env, ""),
            environment.get(receiver.password_env, ""),
        )
        if not all(login):
            return (
                f"the environment variables {receiver.user_env} and {receiver.password_env} are "
                "not both set"
            )
        if not all(map(str.isascii, login)):
            return (
                f"the environment variables {receiver.user_env} and {receiver.password_env} hold "
                "more than ASCII, which a login by SMTP cannot say"
            )
    mail = mail_of(receiver, message)
    return within(receiver.timeout_seconds, lambda: _send(receiver, mail, login))


def _send(receiver: Receiver, mail: EmailMessage, login: tuple[str, str] | None) -> str | None:
    try:
        with _connected(receiver) as server:
            if receiver.tls == "starttls":
                server.starttls(context=ssl.create_default_context())
            if login is not None:
                server.login(*login)
            # Raises if it takes nobody's; that some were taken counts, or those get it for ever.
            server.send_message(mail)
    except smtplib.SMTPResponseException as error:
        # What it says may repeat what it was sent.
        return f"the mail server answered {error.smtp_code} ({type(error).__name__})"
    except (smtplib.SMTPException, OSError) as error:
        said = getattr(error, "strerror", None)
        return f"{type(error).__name__}{f': {said}' if isinstance(said, str) else ''}"
    return None


def _connected(receiver: Receiver) -> smtplib.SMTP:
    host, port = receiver.host or "", receiver.port or _PORTS[receiver.tls]
    seconds = receiver.timeout_seconds
    if receiver.tls == "tls":
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(host, port, timeout=seconds, context=context)
    return smtplib.SMTP(host, port, timeout=seconds)
