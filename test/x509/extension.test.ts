import { expect, test } from "vitest";
import { DerError, DerReader, Tag } from "../../src/x509/der.ts";
import * as extension from "../../src/x509/extension.ts";
import { encodeName } from "../../src/x509/name.ts";
import { accessMethodOids, extensionOids, extKeyUsageOids } from "../../src/x509/oid.ts";

function octets(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex.replaceAll(" ", ""), "hex"));
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

test("CRT-13: critical FALSE is not encoded, TRUE is FF", () => {
  const value = octets("3000");
  const oid = extensionOids.basicConstraints;
  expect(hex(extension.encodeExtension({ oid, critical: false, value }))).toBe(
    "30090603551d1304023000",
  );
  expect(hex(extension.encodeExtension({ oid, critical: true, value }))).toBe(
    "300c0603551d130101ff04023000",
  );
});

test.for([
  { name: "CRT-12: no extension", list: "3000" },
  { name: "CRT-12: one twice", list: "3016 3009 0603551d1304023000 3009 0603551d1304023000" },
  { name: "CRT-13: critical FALSE", list: "300e 300c 0603551d13010100 04023000" },
  { name: "CRT-13: critical 01", list: "300e 300c 0603551d13010101 04023000" },
  { name: "CRT-19: a field too many", list: "300d 300b 0603551d1304023000 0500" },
  { name: "CRT-19: no value", list: "3007 3005 0603551d13" },
  { name: "CRT-19: a constructed OCTET STRING", list: "300b 3009 0603551d1324023000" },
])("extensions are refused: $name", ({ list }) => {
  expect(() => extension.readExtensions(DerReader.whole(octets(list), Tag.sequence))).toThrow(
    DerError,
  );
});

test.for([
  { value: { cA: true }, der: "30030101ff" },
  { value: { cA: true, pathLen: 0 }, der: "30060101ff020100" },
  { value: { cA: true, pathLen: 128 }, der: "30070101ff02020080" },
  { value: { cA: false }, der: "3000" },
])("CRT-13, CRT-15, SRV-14: basicConstraints $der", ({ value, der }) => {
  expect(hex(extension.encodeBasicConstraints(value))).toBe(der);
  expect(extension.parseBasicConstraints(octets(der))).toEqual(value);
});

test.for([
  { name: "CRT-13: cA FALSE encoded", der: "3003010100" },
  { name: "CRT-15: pathLen without cA", der: "3003020100" },
  { name: "a negative pathLen", der: "30060101ff0201ff" },
  { name: "a padded pathLen", der: "30070101ff02020001" },
  { name: "CRT-19: bytes behind", der: "30030101ff00" },
  { name: "CRT-19: a field too many", der: "30080101ff0201000500" },
])("basicConstraints are refused: $name", ({ der }) => {
  expect(() => extension.parseBasicConstraints(octets(der))).toThrow(DerError);
});

test("CRT-15: basicConstraints without cA take no pathLen", () => {
  expect(() => extension.encodeBasicConstraints({ cA: false, pathLen: 0 })).toThrow(RangeError);
  expect(() => extension.encodeBasicConstraints({ cA: true, pathLen: -1 })).toThrow(RangeError);
  expect(() => extension.encodeBasicConstraints({ cA: true, pathLen: 0.5 })).toThrow(RangeError);
});

test.for<{ usages: extension.KeyUsage[]; der: string }>([
  { usages: ["digitalSignature"], der: "03020780" },
  { usages: ["keyCertSign", "cRLSign"], der: "03020106" },
  { usages: ["digitalSignature", "keyCertSign", "cRLSign"], der: "03020186" },
  { usages: ["encipherOnly"], der: "03020001" },
  { usages: ["keyAgreement", "decipherOnly"], der: "0303070880" },
])("CRT-14: keyUsage $usages is $der", ({ usages, der }) => {
  expect(hex(extension.encodeKeyUsage(usages))).toBe(der);
  expect(extension.parseKeyUsage(octets(der))).toEqual(usages);
});

test.for([
  { name: "no bit", der: "030100" },
  { name: "no bit set", der: "03020700" },
  { name: "a trailing zero bit", der: "03020680" },
  { name: "a trailing zero octet", der: "0303078000" },
  { name: "a padding bit set", der: "03020781" },
  { name: "a bit without a name", der: "0303060040" },
  { name: "bytes behind", der: "0302078000" },
])("CRT-14: keyUsage is refused: $name", ({ der }) => {
  expect(() => extension.parseKeyUsage(octets(der))).toThrow(DerError);
});

test("CRT-14: keyUsage has at least one bit", () => {
  expect(() => extension.encodeKeyUsage([])).toThrow(RangeError);
  expect(() => extension.encodeKeyUsage(["nothing" as extension.KeyUsage])).toThrow(RangeError);
});

test("SRV-08: extKeyUsage keeps its order", () => {
  const purposes = [extKeyUsageOids.serverAuth, extKeyUsageOids.clientAuth];
  const value = extension.encodeExtKeyUsage(purposes);
  expect(hex(value)).toBe("301406082b0601050507030106082b06010505070302");
  expect(extension.parseExtKeyUsage(value)).toEqual(purposes);
  expect(() => extension.encodeExtKeyUsage([])).toThrow(RangeError);
  expect(() => extension.parseExtKeyUsage(octets("3000"))).toThrow(DerError);
  expect(() => extension.parseExtKeyUsage(octets("30020500"))).toThrow(DerError);
});

test("CRT-16, CRL-52: authorityKeyIdentifier has a key identifier alone", () => {
  const value = extension.encodeAuthorityKeyIdentifier(octets("0102"));
  expect(hex(value)).toBe("300480020102");
  expect(extension.parseAuthorityKeyIdentifier(value)).toEqual({ keyIdentifier: octets("0102") });
});

test("CRT-16: the other forms of authorityKeyIdentifier are shown to whoever refuses them", () => {
  expect(extension.parseAuthorityKeyIdentifier(octets("3000"))).toEqual({});
  expect(extension.parseAuthorityKeyIdentifier(octets("3008 a103 820161 820105"))).toEqual({
    authorityCertIssuer: [{ kind: "dns", value: "a" }],
    authorityCertSerialNumber: octets("05"),
  });
  expect(() => extension.parseAuthorityKeyIdentifier(octets("3003820105"))).toThrow(DerError);
  expect(() => extension.parseAuthorityKeyIdentifier(octets("30058201058000"))).toThrow(DerError);
});

test("CRT-17: subjectKeyIdentifier", () => {
  const value = extension.encodeSubjectKeyIdentifier(octets("0102"));
  expect(hex(value)).toBe("04020102");
  expect(extension.parseSubjectKeyIdentifier(value)).toEqual(octets("0102"));
  expect(() => extension.parseSubjectKeyIdentifier(octets("0400"))).toThrow(DerError);
});

test("ICA-06, SRV-12: one distribution point, fullName, one URI", () => {
  const value = extension.encodeDistributionPoint("http://a/b");
  expect(hex(value)).toBe("30123010a00ea00c860a687474703a2f2f612f62");
  expect(extension.parseDistributionPoints(value)).toEqual([
    { fullName: [{ kind: "uri", value: "http://a/b" }] },
  ]);
  expect(() => extension.encodeDistributionPoint("")).toThrow(RangeError);
});

test("ICA-06: reasons and cRLIssuer are shown to whoever refuses them", () => {
  const value = octets("300b 3009 81020640 a203820161");
  expect(extension.parseDistributionPoints(value)).toEqual([
    { reasons: [1], cRLIssuer: [{ kind: "dns", value: "a" }] },
  ]);
});

test.for(["3000", "30023000", "3004 3002 a000", "3006 3004 a002 0500", "3006 3004 8102 0640"])(
  "ICA-06: cRLDistributionPoints %s are refused",
  (der) => {
    expect(() => extension.parseDistributionPoints(octets(der))).toThrow(DerError);
  },
);

test("ICA-07, SRV-11: authorityInfoAccess has caIssuers with one URI", () => {
  const value = extension.encodeAuthorityInfoAccess("http://a/b");
  expect(hex(value)).toBe("3018301606082b06010505073002860a687474703a2f2f612f62");
  expect(extension.parseAuthorityInfoAccess(value)).toEqual([
    { method: accessMethodOids.caIssuers, location: { kind: "uri", value: "http://a/b" } },
  ]);
  expect(() => extension.parseAuthorityInfoAccess(octets("3000"))).toThrow(DerError);
});

test("NC-05, NC-06, NC-09: name constraints of every kind come back", () => {
  const name = encodeName([{ type: "O", value: "Example" }]);
  const constraints: extension.NameConstraints = {
    permitted: [
      { kind: "dns", value: "example.com" },
      { kind: "email", value: ".example.com" },
      { kind: "uri", value: "host.example.com" },
      { kind: "ip", address: octets("c0000200"), mask: octets("ffffff00") },
      { kind: "directory", der: Uint8Array.of(0xa4, name.length, ...name) },
    ],
    excluded: [
      { kind: "dns", value: "" },
      { kind: "ip", address: new Uint8Array(16), mask: new Uint8Array(16) },
    ],
  };
  const value = extension.encodeNameConstraints(constraints);
  expect(extension.parseNameConstraints(value)).toEqual(constraints);
});

test.for([
  { name: "NC-01: nothing", der: "3000" },
  { name: "NC-01: an empty list", der: "3002a000" },
  { name: "NC-03: minimum 0 encoded", der: "300aa008 3006 820161 800100" },
  { name: "NC-03: a maximum", der: "300aa008 3006 820161 810101" },
  { name: "NC-05: 4 octets", der: "300aa008 3006 870401020304" },
  { name: "NC-05: 9 octets", der: "300fa00d 300b 8709010203040506070809" },
])("name constraints are refused: $name", ({ der }) => {
  expect(() => extension.parseNameConstraints(octets(der))).toThrow(DerError);
});

test("NC-01: name constraints without a constraint are not encoded", () => {
  expect(() => extension.encodeNameConstraints({ permitted: [], excluded: [] })).toThrow(
    RangeError,
  );
});

test.for([0n, 1n, 255n, extension.MAX_CRL_NUMBER])("CRL-56: CRL number %s", (number) => {
  expect(extension.parseCrlNumber(extension.encodeCrlNumber(number))).toBe(number);
});

test("CRL-56: the CRL number is 0 to 2^159 - 1", () => {
  expect(() => extension.encodeCrlNumber(-1n)).toThrow(RangeError);
  expect(() => extension.encodeCrlNumber(2n ** 159n)).toThrow(RangeError);
  expect(() => extension.parseCrlNumber(octets("0201ff"))).toThrow(DerError);
  expect(() => extension.parseCrlNumber(octets(`021500${"ff".repeat(20)}`))).toThrow(DerError);
});

test("CRL-27, CRL-30: reason codes", () => {
  for (const [reason, code] of Object.entries(extension.crlReasonCodes)) {
    expect(extension.parseReasonCode(Uint8Array.of(0x0a, 1, code))).toBe(reason);
    if (reason === "unspecified") continue;
    expect(
      extension.encodeReasonCode(reason as Exclude<extension.CrlReason, "unspecified">),
    ).toEqual(Uint8Array.of(0x0a, 1, code));
  }
  for (const der of ["0a0107", "0a010b", "0a01ff", "0a020001", "020101", "0a0101 00"]) {
    expect(() => extension.parseReasonCode(octets(der)), der).toThrow(DerError);
  }
});

test("CRL-36: invalidityDate is GeneralizedTime before 2050 too, without a fraction", () => {
  const value = extension.encodeInvalidityDate(new Date("2026-01-02T03:04:05.678Z"));
  expect(Buffer.from(value.subarray(2)).toString()).toBe("20260102030405Z");
  expect(extension.parseInvalidityDate(value)).toEqual(new Date("2026-01-02T03:04:05Z"));
});

test("CRL-58 to CRL-68: issuingDistributionPoint", () => {
  const value = octets("3016 a00ea00c860a687474703a2f2f612f62 8101ff 8401ff");
  expect(extension.parseIssuingDistributionPoint(value)).toEqual({
    fullName: [{ kind: "uri", value: "http://a/b" }],
    onlyContainsUserCerts: true,
    onlyContainsCACerts: false,
    indirectCRL: true,
    onlyContainsAttributeCerts: false,
  });
  expect(extension.parseIssuingDistributionPoint(octets("300483020640"))).toMatchObject({
    onlySomeReasons: [1],
  });
});

test.for([
  { name: "CRL-59: nothing", der: "3000" },
  { name: "CRL-67: indirectCRL FALSE encoded", der: "3003 840100" },
  { name: "flags out of order", der: "3006 8201ff 8101ff" },
  { name: "an empty name", der: "3002 a000" },
])("issuingDistributionPoint is refused: $name", ({ der }) => {
  expect(() => extension.parseIssuingDistributionPoint(octets(der))).toThrow(DerError);
});
