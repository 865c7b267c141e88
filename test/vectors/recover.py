"""Opens a sealed key with the texts of its shares: Python alone, and nothing of Countersign.

    python3 recover.py SEALED.hex < shares.txt

One share a line; the secret (PKCS#8 in DER, or a token's PIN) is printed in hex. CUSTODY.md 2.2, 2.4 and 2.5.
"""

import hashlib
import hmac
import sys

CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def read_share(text):
    """BIP-350: (x, threshold, Y)."""
    prefix, _, data = text.strip().lower().partition("1")
    words = [CHARSET.index(c) for c in data]
    check = 1
    expanded = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    for word in expanded + words:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ word
        for bit in range(5):
            check ^= GENERATORS[bit] if top >> bit & 1 else 0
    if prefix != "csshare" or check != 0x2BC830A3:
        sys.exit("a share is mistyped")
    number = 0
    for word in words[:-6]:
        number = number << 5 | word
    octets = (number >> 3).to_bytes(44, "big")
    return octets[1], octets[2], octets[12:]


def times(a, b, modulus=0x11D):
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a = a << 1 ^ (modulus if a & 0x80 else 0)
        b >>= 1
    return product


def inverse(a, modulus=0x11D):
    return next((b for b in range(256) if times(a, b, modulus) == 1), 0)


def interpolate_at_zero(shares):
    kek = bytearray(32)
    for x, _, y in shares:
        weight = 1
        for other, _, _ in shares:
            if other != x:
                weight = times(weight, times(other, inverse(other ^ x)))
        for place in range(32):
            kek[place] ^= times(weight, y[place])
    return bytes(kek)


def hkdf(key, salt, info, length):
    secret = hmac.new(salt, key, hashlib.sha256).digest()
    return hmac.new(secret, info + b"\x01", hashlib.sha256).digest()[:length]


def sbox(a):
    b = inverse(a, 0x11B)
    rotated = [b << n & 0xFF | b >> 8 - n for n in range(5)]
    return rotated[0] ^ rotated[1] ^ rotated[2] ^ rotated[3] ^ rotated[4] ^ 0x63


SBOX = [sbox(a) for a in range(256)]


def aes256_round_keys(key):
    words = [key[at : at + 4] for at in range(0, 32, 4)]
    constant = 1
    for at in range(8, 60):
        word = words[-1]
        if at % 8 == 0:
            word = bytes(SBOX[b] for b in word[1:] + word[:1])
            word = bytes([word[0] ^ constant]) + word[1:]
            constant = times(constant, 2, 0x11B)
        elif at % 8 == 4:
            word = bytes(SBOX[b] for b in word)
        words.append(bytes(a ^ b for a, b in zip(words[at - 8], word)))
    return [b"".join(words[at : at + 4]) for at in range(0, 60, 4)]


def aes256(keys, block):
    state = bytes(a ^ b for a, b in zip(block, keys[0]))
    for number, key in enumerate(keys[1:], 1):
        state = [SBOX[state[(at + 4 * (at % 4)) % 16]] for at in range(16)]
        if number < 14:
            mixed = []
            for column in range(0, 16, 4):
                c = state[column : column + 4]
                for row in range(4):
                    mixed.append(
                        times(c[row], 2, 0x11B)
                        ^ times(c[(row + 1) % 4], 3, 0x11B)
                        ^ c[(row + 2) % 4]
                        ^ c[(row + 3) % 4]
                    )
            state = mixed
        state = bytes(a ^ b for a, b in zip(state, key))
    return state


def open_sealed(sealed, kek):
    salt, check, ciphertext = sealed[80:112], sealed[112:144], sealed[144:-16]
    if hkdf(kek, salt, b"countersign/v1/kek-check", 32) != check:
        sys.exit("these shares open another key")
    keys = aes256_round_keys(hkdf(kek, salt, b"countersign/v1/wrap-key", 32))
    nonce = hkdf(kek, salt, b"countersign/v1/wrap-nonce", 12)
    stream = b""
    counter = 2  # GCM: 1 belongs to the tag, which is not needed to read
    while len(stream) < len(ciphertext):
        stream += aes256(keys, nonce + counter.to_bytes(4, "big"))
        counter += 1
    return bytes(a ^ b for a, b in zip(ciphertext, stream))


shares = [read_share(line) for line in sys.stdin if line.strip() and not line.startswith("#")]
if len({x for x, _, _ in shares}) < shares[0][1]:
    sys.exit(f"{shares[0][1]} shares are needed")
with open(sys.argv[1], encoding="ascii") as file:
    print(open_sealed(bytes.fromhex(file.read().strip()), interpolate_at_zero(shares)).hex())
