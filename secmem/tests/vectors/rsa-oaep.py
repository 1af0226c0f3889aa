"""Writes rsa-oaep.txt: keys and ciphertexts of another implementation (OpenSSL's, by the Python package `cryptography`).

    python3 secmem/tests/vectors/rsa-oaep.py > secmem/tests/vectors/rsa-oaep.txt

Keys and padding are drawn at random, so each run writes another file. What is refused is padded here, wrongly in one way each.
"""

import hashlib
import os

import cryptography
from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa


def oaep(of=hashes.SHA256, mask=hashes.SHA256, label=None):
    return padding.OAEP(mgf=padding.MGF1(mask()), algorithm=of(), label=label)


def mgf1(seed, length):
    blocks = (hashlib.sha256(seed + n.to_bytes(4, "big")).digest() for n in range(length // 32 + 1))
    return b"".join(blocks)[:length]


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def masked(block, first=0):
    """What is encrypted: the block of hash, zeros, a one and the content, under masks."""
    seed = os.urandom(32)
    block = xor(block, mgf1(seed, len(block)))
    return bytes([first]) + xor(seed, mgf1(block, 32)) + block


def wrong(k, n):
    """Padded contents that are wrong in one way each, by name."""
    label, content = hashlib.sha256().digest(), b"never to be seen"
    zeros = bytes(k - 66 - len(content))
    right = label + zeros + b"\x01" + content
    yield "first-byte-1", masked(right, 1)
    yield "first-byte-128", masked(right, 128) if n >> (8 * k - 1) and (129 << 8 * (k - 1)) < n else masked(right, 2)
    for at in (0, 31):
        yield f"hash-bit-{8 * at}", masked(bytes(b ^ (i == at) for i, b in enumerate(right)))
    yield "hash-of-a-label", masked(hashlib.sha256(b"label").digest() + zeros + b"\x01" + content)
    yield "two-for-one", masked(label + zeros + b"\x02" + content)
    yield "byte-in-the-zeros", masked(label + zeros[:-3] + b"\x80\0\0\x01" + content)
    yield "first-of-the-zeros", masked(label + b"\xff" + zeros[1:] + b"\x01" + content)
    yield "no-one", masked(label + bytes(k - 65))
    yield "no-one-and-an-end", masked(label + bytes(k - 66) + b"\x02")
    yield "pkcs1-v1.5", b"\0\x02" + bytes(b % 255 + 1 for b in os.urandom(k - 3 - len(content))) + b"\0" + content
    yield "nothing", bytes(k)
    yield "one", bytes(k - 1) + b"\x01"
    yield "ones", b"\0" + b"\xff" * (k - 1)


def key(bits, name, p, q, e=65537):
    k = bits // 8
    d = pow(e, -1, (p - 1) * (q - 1))
    n, half = p * q, k // 2
    secret = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(e, n)).private_key()
    public = secret.public_key()
    fields = [(n, k), (p, half), (q, half), (d % (p - 1), half), (d % (q - 1), half), (pow(q, -1, p), half)]
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    print(f"key {name}\nbits {bits}\nsecret {b''.join(f.to_bytes(size, 'big') for f, size in fields).hex()}\npublic {der.hex()}\n")

    def case(name, cipher, content=None):
        print(f"case {name}\ncipher {cipher.hex()}\n" + (f"content {content.hex()}\n" if content is not None else "refused\n"))

    for length in sorted({0, 1, 16, 32, k - 67, k - 66}):
        content = os.urandom(length)
        case(f"{length}-bytes", public.encrypt(content, oaep()), content)
    if p < q:
        return
    case("zeros", public.encrypt(bytes(33), oaep()), bytes(33))
    case("ones", public.encrypt(b"\x01" * 33, oaep()), b"\x01" * 33)
    case("sha1", public.encrypt(b"never to be seen", oaep(hashes.SHA1, hashes.SHA1)))
    case("mask-of-sha1", public.encrypt(b"never to be seen", oaep(mask=hashes.SHA1)))
    case("with-a-label", public.encrypt(b"never to be seen", oaep(label=b"label")))
    for name, text in wrong(k, n):
        case(name, pow(int.from_bytes(text, "big"), e, n).to_bytes(k, "big"))
    good = public.encrypt(b"never to be seen", oaep())
    case("the-modulus", n.to_bytes(k, "big"))
    case("one-less-than-the-modulus", (n - 1).to_bytes(k, "big"))
    case("the-highest-number", b"\xff" * k)
    case("a-byte-short", good[:-1])
    case("a-byte-long", b"\0" + good)
    while (more := int.from_bytes(good, "big") + n) >> bits:
        good = public.encrypt(b"never to be seen", oaep())
    case("the-modulus-more", more.to_bytes(k, "big"))


print(f"# Written by rsa-oaep.py with {backend.openssl_version_text()}, cryptography {cryptography.__version__}.")
print("# RSAES-OAEP of RFC 8017 with SHA-256 and an empty label; a secret is n p q dp dq qinv.\n")
for bits, above in ((2048, True), (2048, False), (3072, True), (4096, True)):
    numbers = rsa.generate_private_key(65537, bits).private_numbers()
    p, q = sorted((numbers.p, numbers.q), reverse=above)
    key(bits, "p-above-q" if above else "p-below-q", p, q)
