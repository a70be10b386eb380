"""The key and the certificate by which the processes of one run know each other."""

from __future__ import annotations

from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed import Security

NAME = "dask-internal"
"""What Dask calls the certificates that it makes itself."""

VALID = datetime(1970, 1, 1), datetime(9999, 12, 31, 23, 59, 59)
"""Whatever a clock says; the end is that of a certificate without one (RFC 5280, 4.1.2.5)."""


def make_credentials() -> Security:
    """A key and a certificate signed by itself, in memory alone, for the processes of one run.

    `Security.temporary` gives one that is valid from now on. Where the clock is set back while a
    run lasts, be it by a second, that one is not valid yet, and no worker can be started anew.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(VALID[0])
        .not_valid_after(VALID[1])
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    shown = certificate.public_bytes(serialization.Encoding.PEM).decode()
    parts = {
        f"tls_{role}_{part}": text
        for role in ("client", "scheduler", "worker")
        for part, text in (("key", secret), ("cert", shown))
    }
    return Security(require_encryption=True, tls_ca_file=shown, **parts)
