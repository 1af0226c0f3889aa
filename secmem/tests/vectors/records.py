"""Writes records-v1.txt anew, by an implementation that shares no code with the library: pycryptodome, and HKDF by hand.

    python3 -m venv venv && venv/bin/pip install pycryptodome && venv/bin/python records.py > records-v1.txt
"""

import hashlib
import hmac
from struct import pack

from Crypto.Cipher import AES, ChaCha20_Poly1305


def hkdf(salt, key, info, length):
    made, block = b"", b""
    pseudorandom = hmac.digest(salt or bytes(64), key, "sha512")
    while len(made) < length:
        block = hmac.digest(pseudorandom, block + info + bytes([len(made) // 64 + 1]), "sha512")
        made += block
    return made[:length]


def seal(key, kind, cipher, name, millis, salt, content, associated):
    header = b"SMRC" + bytes([1, kind, cipher, 0]) + name + pack("<QQ", millis, len(content)) + salt
    derived = hkdf(salt, key, b"secmem record v1" + bytes([kind, cipher]), 56)
    if cipher == 1:
        made = AES.new(derived[:32], AES.MODE_GCM, nonce=derived[32:44])
    else:
        made = ChaCha20_Poly1305.new(key=derived[:32], nonce=derived[32:56])
    made.update(header + pack("<Q", len(associated)) + associated)
    ciphertext, tag = made.encrypt_and_digest(content)
    return header + ciphertext + tag


def name_of(key):
    return hkdf(b"", key, b"secmem record key id v1", 16)


def tell(**fields):
    for name, value in fields.items():
        print(name, value.hex() if isinstance(value, bytes) else value)
    print()


print("# Records of version 1, by another implementation: see records.py. Bytes in hex.\n")
key = hashlib.sha256(b"key of the vectors").digest()
for cipher in (1, 2):
    for at, (content, associated) in enumerate([(b"", b""), (b"a bearer token", b"user 7"), (bytes(range(256)) * 5, b"x" * 70)]):
        salt = hashlib.sha256(b"salt %d %d" % (cipher, at)).digest()
        millis = 1_700_000_000_000 + at
        record = seal(key, 1, cipher, name_of(key), millis, salt, content, associated)
        tell(kind="data", cipher=cipher, key=key, id=name_of(key), millis=millis, content=content, associated=associated, record=record)
wrapping = hashlib.sha256(b"wrapping key of the vectors").digest()
inner = hashlib.sha256(b"wrapped key of the vectors").digest()
content = inner + pack("<QQ", 1_700_000_000_000, 0)
record = seal(wrapping, 2, 2, name_of(inner), 1_700_000_000_000, hashlib.sha256(b"salt").digest(), content, b"")
data = seal(inner, 1, 1, name_of(inner), 1_700_000_000_000, hashlib.sha256(b"more salt").digest(), b"under a wrapped key", b"")
tell(kind="wrapped", wrapping=wrapping, key=inner, id=name_of(inner), record=record, content=b"under a wrapped key", data=data)
