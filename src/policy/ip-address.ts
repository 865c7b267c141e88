/** IP addresses as text and as 32-bit words: RFC 4291 §2.2 (reading), RFC 5952 §4 (writing). */

/** One 32-bit word for IPv4, four for IPv6, most significant first, each unsigned. */
export type IpAddress = readonly number[];

/** Why a text is not an IP address that a certificate may name. */
export type IpRefusal = "ip-malformed" | "leading-zero" | "ipv4-mapped" | "zone-id";

const DOTTED = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/;

/**
 * Reads dotted decimal or any RFC 4291 §2.2 form.
 *
 * Octets with leading zeros are refused, since some readers take them as octal. An IPv4-mapped
 * address is refused: it reaches an IPv4 host past the rules for IPv4 blocks. A zone id means
 * something on one host only.
 */
export function readIpAddress(text: string): IpAddress | IpRefusal {
  if (!text.includes(":")) {
    const word = readDotted(text);
    return typeof word === "number" ? [word] : word;
  }
  if (text.includes("%")) return "zone-id";
  let hextets = text;
  const lastColon = text.lastIndexOf(":");
  if (text.includes(".")) {
    const tail = readDotted(text.slice(lastColon + 1));
    if (typeof tail !== "number") return tail;
    hextets = `${text.slice(0, lastColon + 1)}${(tail >>> 16).toString(16)}:${(tail & 0xffff).toString(16)}`;
  }
  const words = readHextets(hextets);
  if (words === undefined) return "ip-malformed";
  return isMapped(words) ? "ipv4-mapped" : words;
}

/** Whether these are the words of an address in ::ffff:0:0/96 (RFC 4291 §2.5.5.2). */
function isMapped(words: IpAddress): boolean {
  return words.length === 4 && words[0] === 0 && words[1] === 0 && words[2] === 0xffff;
}

/** Dotted decimal, or the one form of RFC 5952 §4: lower case, the first longest run of zeros as `::`. */
export function ipAddressText(address: IpAddress): string {
  if (address.length === 1) {
    const word = address[0]!;
    return `${word >>> 24}.${(word >>> 16) & 255}.${(word >>> 8) & 255}.${word & 255}`;
  }
  const hextets = address.flatMap((word) => [word >>> 16, word & 0xffff]);
  let start = -1;
  let length = 1; // a single zero stays as it is: RFC 5952 §4.2.2
  for (let at = 0; at < 8; at++) {
    let end = at;
    while (end < 8 && hextets[end] === 0) end++;
    if (end - at > length) [start, length] = [at, end - at];
    at = end;
  }
  const text = (part: number[]) => part.map((hextet) => hextet.toString(16)).join(":");
  if (start < 0) return text(hextets);
  return `${text(hextets.slice(0, start))}::${text(hextets.slice(start + length))}`;
}

/** The address with all bits after the first `prefix` cleared. */
export function maskAddress(address: IpAddress, prefix: number): IpAddress {
  return address.map((word, index) => {
    const bits = prefix - 32 * index;
    if (bits >= 32) return word;
    return bits <= 0 ? 0 : (word & (0xffffffff << (32 - bits))) >>> 0;
  });
}

/** A key for maps: addresses of different families never share one. */
export function addressKey(address: IpAddress): number | string {
  return address.length === 1 ? address[0]! : address.join();
}

function readDotted(text: string): number | "ip-malformed" | "leading-zero" {
  const octets = DOTTED.exec(text);
  if (octets === null) return "ip-malformed";
  let word = 0;
  for (let index = 1; index <= 4; index++) {
    const octet = octets[index]!;
    if (octet.length > 1 && octet.startsWith("0")) return "leading-zero";
    if (Number(octet) > 255) return "ip-malformed";
    word = word * 256 + Number(octet);
  }
  return word;
}

/** Eight groups, or fewer around one `::` that stands for at least one group. */
function readHextets(text: string): IpAddress | undefined {
  const gap = text.indexOf("::");
  let groups: string[];
  if (gap < 0) {
    groups = text.split(":");
  } else {
    const before = gap === 0 ? [] : text.slice(0, gap).split(":");
    const after = gap + 2 === text.length ? [] : text.slice(gap + 2).split(":");
    const missing = 8 - before.length - after.length;
    if (missing < 1) return undefined;
    groups = [...before, ...Array<string>(missing).fill("0"), ...after];
  }
  if (groups.length !== 8) return undefined;
  const words = [0, 0, 0, 0];
  for (let index = 0; index < 8; index++) {
    const group = groups[index]!;
    if (!/^[0-9a-fA-F]{1,4}$/.test(group)) return undefined;
    words[index >> 1] = words[index >> 1]! * 0x10000 + parseInt(group, 16);
  }
  return words;
}
