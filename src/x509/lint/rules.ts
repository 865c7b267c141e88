/**
 * The rules that the linter knows: the private family's share of docs/profile-rules.
 *
 * `decides` says what a rule is judged from:
 * - `der`: the bytes and the issuer alone;
 * - `context`: the caller has to hand something in (a predecessor, what was issued, what was asked for); without it
 *   the rule, or the part of it that needs it, stays silent;
 * - `elsewhere`: behaviour that no bytes show (a CSR's signature, when something was persisted). Nothing here reports it.
 *
 * `level` is the strictest that the rule has; a part of it may report a milder one. M and P refuse, S warns.
 */

export type Level = "M" | "P" | "S";

export interface Rule {
  readonly level: Level;
  readonly section: string;
  readonly title: string;
  readonly decides: "der" | "context" | "elsewhere";
}

function section<Id extends string>(
  name: string,
  rows: Readonly<Record<Id, readonly [Level, Rule["decides"], string]>>,
): Record<Id, Rule> {
  const made: Partial<Record<Id, Rule>> = {};
  for (const id of Object.keys(rows) as Id[]) {
    const [level, decides, title] = rows[id];
    made[id] = { level, section: name, title, decides };
  }
  return made as Record<Id, Rule>;
}

export const rules = {
  ...section("All certificates", {
    "CRT-01": ["M", "der", "the version is v3, and encoded"],
    "CRT-02": ["M", "der", "the serial number is positive, of at most 20 octets, minimal DER"],
    "CRT-04": ["M", "context", "the serial number is new for this issuer"],
    "CRT-05": ["M", "der", "the issuer is byte-identical to the issuer certificate's subject"],
    "CRT-06": ["M", "der", "both algorithm fields are identical, known, and fit the issuer's key"],
    "CRT-07": ["M", "der", "the signature verifies; the TBS equals the approved one"],
    "CRT-08": ["M", "der", "no issuerUniqueID, no subjectUniqueID"],
    "CRT-09": ["M", "der", "UTCTime through 2049, then GeneralizedTime; whole seconds, Z"],
    "CRT-10": ["M", "der", "notBefore is before notAfter; periods include the last second"],
    "CRT-11": ["P", "der", "the validity lies within the issuer's"],
    "CRT-12": ["M", "der", "no extension twice; the list is not empty"],
    "CRT-13": ["M", "der", "defaults are not encoded; BOOLEAN TRUE is FF"],
    "CRT-14": ["M", "der", "keyUsage has at least one bit and no trailing zero bits"],
    "CRT-15": ["M", "der", "pathLen only with cA and keyCertSign"],
    "CRT-16": ["M", "der", "AKI holds the issuer's SKI, nothing else, and is not critical"],
    "CRT-17": ["M", "context", "an SKI names one public key only, and is not critical"],
    "CRT-18": ["P", "der", "the SKI is made by the method that the profile names"],
    "CRT-19": ["M", "der", "strict DER throughout, extension values included"],
    "CRT-20": ["M", "der", "no unknown extension but those that the profile lists"],
    "CRT-21": ["P", "context", "every field says what was asked for"],
    "CRT-22": ["P", "der", "the issuer's path allows it: cA, keyCertSign, pathLen, EKU, validity"],
  }),
  ...section("Keys", {
    "KEY-01": [
      "M",
      "der",
      "the SPKI algorithm is RSA, P-256, P-384, P-521 (or KEY-13's) in its exact bytes",
    ],
    "KEY-02": ["M", "der", "RSA of at least 2048 bits, a multiple of 8 (P: at most 4096)"],
    "KEY-03": ["M", "der", "the RSA exponent is odd and at least 3 (P: it is 65537)"],
    "KEY-04": ["S", "der", "the RSA modulus is odd, no square, and has no factor below 752"],
    "KEY-09": [
      "M",
      "der",
      "EC: named curve, uncompressed point, coordinates in range, on the curve",
    ],
    "KEY-10": ["P", "elsewhere", "the CSR's signature is verified, and is not SHA-1 or MD5"],
    "KEY-11": [
      "P",
      "context",
      "no key is both a CA's and a leaf's; subject key is not the issuer's",
    ],
    "KEY-13": ["P", "context", "Ed25519 only where the profile allows it"],
  }),
  ...section("Root", {
    "ROOT-01": ["M", "der", "issuer and subject are the same bytes; it verifies with its own key"],
    "ROOT-04": ["M", "der", "basicConstraints is critical with cA TRUE (S: no pathLen)"],
    "ROOT-05": [
      "M",
      "der",
      "keyUsage is critical: keyCertSign, cRLSign, nothing else but for OCSP",
    ],
    "ROOT-06": ["M", "der", "the SKI is present"],
    "ROOT-07": ["S", "der", "the AKI is present"],
    "ROOT-09": ["S", "der", "no certificatePolicies, CDP, AIA or nameConstraints"],
    "ROOT-10": ["M", "der", "the subject is not empty (RFC 5280 §4.1.2.6; the rest is for br)"],
    "ROOT-11": ["P", "context", "no other root of this installation has had this subject"],
  }),
  ...section("Intermediate", {
    "ICA-01": ["M", "der", "AKI and SKI are present"],
    "ICA-02": [
      "M",
      "der",
      "basicConstraints is critical with cA TRUE (P: a pathLen below the issuer's)",
    ],
    "ICA-03": ["M", "der", "keyUsage as ROOT-05"],
    "ICA-07": ["S", "der", "AIA has caIssuers with an http URI, is not critical"],
    "ICA-08": ["M", "der", "the subject is not empty (RFC 5280 §4.1.2.6; the rest is for br)"],
    "ICA-12": ["P", "der", "the EKUs are among those of every CA above that has some"],
    "ICA-13": ["P", "context", "the key was made in an approved ceremony"],
  }),
  ...section("Name constraints", {
    "NC-01": ["M", "der", "only in CA certificates; never empty"],
    "NC-02": ["M", "der", "critical"],
    "NC-03": ["M", "der", "minimum is not encoded, maximum is absent"],
    "NC-04": ["P", "der", "a dNSName has no leading dot and no `*`, and is lower case"],
    "NC-05": ["M", "der", "an iPAddress has 8 or 32 octets (P: contiguous mask, host bits zero)"],
    "NC-08": ["P", "der", "every name is inside the constraints of the whole chain"],
    "NC-09": ["M", "der", "excluded wins over permitted; types not mentioned are unrestricted"],
  }),
  ...section("Server leaf", {
    "SRV-03": [
      "M",
      "der",
      "a SAN with dNSName and iPAddress only, critical if and only if the subject is empty",
    ],
    "SRV-06": [
      "M",
      "der",
      "at most one CN, which is a SAN value, of at most 64 characters (S: none)",
    ],
    "SRV-08": [
      "P",
      "der",
      "EKU has serverAuth (a peer clientAuth too) and none of a CA's own purposes",
    ],
    "SRV-09": ["S", "der", "keyUsage is critical: digitalSignature (RSA also keyEncipherment)"],
    "SRV-14": ["M", "der", "not a CA: no cA, no pathLen, no keyCertSign, no cRLSign"],
    "SRV-16": ["P", "der", "at most 100 names, none twice, none covered by a wildcard beside it"],
  }),
  ...section("Client leaf", {
    "CLI-01": ["P", "der", "EKU is exactly clientAuth"],
    "CLI-02": ["P", "der", "keyUsage is critical and exactly digitalSignature"],
    "CLI-03": [
      "P",
      "der",
      "the SAN has the kinds that the profile names, one URI if SPIFFE; critical if and only if the subject is empty",
    ],
    "CLI-04": ["P", "der", "no dNSName or iPAddress unless the profile says so"],
    "CLI-05": ["M", "der", "an rfc822Name is an ASCII mailbox; others are SmtpUTF8Mailbox"],
    "CLI-06": ["M", "der", "not a CA; AKI and CDP present, the CDP of its scope"],
    "CLI-07": ["P", "der", "no CA above is limited to purposes without clientAuth"],
  }),
  ...section("Distinguished names", {
    "DN-03": ["M", "der", "C is a PrintableString with an assigned ISO 3166 code"],
    "DN-04": ["M", "der", "DC and emailAddress are IA5String, serialNumber is PrintableString"],
    "DN-06": ["M", "der", "no value is longer than its upper bound"],
    "DN-08": ["P", "der", "no control, zero-width or bidirectional characters; NFC"],
  }),
  ...section("CRL envelope", {
    "CRL-01": ["M", "der", "the version is v2, and encoded"],
    "CRL-02": ["M", "der", "both algorithm fields are identical"],
    "CRL-04": ["M", "der", "the algorithm is known and fits the issuer's key"],
    "CRL-05": ["M", "der", "the issuer is not empty"],
    "CRL-06": ["M", "der", "the issuer is byte-identical to the CA certificate's subject"],
    "CRL-07": ["M", "der", "the CA certificate asserts cRLSign"],
    "CRL-08": [
      "M",
      "der",
      "the signature verifies; no unused bits; the TBS equals the approved one",
    ],
    "CRL-09": ["M", "der", "strict DER throughout"],
    "CRL-10": ["M", "der", "thisUpdate is not in the future"],
    "CRL-11": ["M", "der", "nextUpdate is present"],
    "CRL-12": ["M", "der", "nextUpdate is after thisUpdate"],
    "CRL-13": ["M", "der", "UTCTime through 2049, then GeneralizedTime"],
    "CRL-14": ["M", "der", "times have seconds and Z, no fraction, no offset"],
    "CRL-15": ["P", "der", "thisUpdate and nextUpdate lie within the CA certificate's validity"],
    "CRL-18": ["S", "context", "nextUpdate is not before the predecessor's"],
    "CRL-19": ["P", "context", "thisUpdate is after the predecessor's"],
  }),
  ...section("CRL entries", {
    "CRL-20": ["M", "der", "without entries the field is absent"],
    "CRL-21": ["M", "context", "each serial number is one that this issuer issued"],
    "CRL-22": ["M", "context", "a serial number occurs once, and in one shard only"],
    "CRL-23": ["M", "der", "no revocationDate is after thisUpdate"],
    "CRL-24": [
      "P",
      "context",
      "no revocationDate is before the certificate's notBefore, unless documented",
    ],
    "CRL-26": ["M", "der", "an entry without extensions has no extensions field"],
    "CRL-27": ["M", "der", "reasonCode is ENUMERATED of one octet"],
    "CRL-28": ["M", "der", "reasonCode is not critical"],
    "CRL-29": ["M", "der", "reason 0 is not encoded"],
    "CRL-30": ["M", "der", "no reason 7, none above 10"],
    "CRL-32": ["M", "der", "reason 8 only in a delta CRL"],
    "CRL-35": ["P", "context", "serial numbers, dates and reasons are exactly the intended ones"],
    "CRL-36": ["M", "der", "invalidityDate is GeneralizedTime without fraction, not critical"],
    "CRL-38": ["M", "der", "no entry extension but reasonCode and invalidityDate"],
    "CRL-39": ["M", "der", "no extension twice in an entry"],
    "CRL-40": [
      "M",
      "context",
      "an entry stays until a CRL issued after its certificate's expiry has had it",
    ],
    "CRL-41": ["P", "context", "no entry of the predecessor vanishes but by CRL-40"],
    "CRL-42": ["P", "context", "an entry changes only to keyCompromise or to an earlier date"],
    "CRL-43": ["P", "der", "entries stand in the order of their serial numbers"],
  }),
  ...section("CRL extensions", {
    "CRL-50": ["M", "der", "the AKI is present"],
    "CRL-51": ["M", "der", "the AKI holds the issuer's SKI"],
    "CRL-53": ["M", "der", "the AKI is not critical"],
    "CRL-54": ["M", "der", "the CRL number is present"],
    "CRL-55": ["M", "der", "the CRL number is not critical"],
    "CRL-56": ["M", "der", "the CRL number is not negative and below 2^159"],
    "CRL-57": ["M", "context", "the CRL number is above every earlier one"],
    "CRL-58": ["M", "der", "an IDP is critical"],
    "CRL-59": ["M", "der", "an IDP is not empty"],
    "CRL-62": ["P", "der", "an IDP's distribution point is exactly one URI"],
    "CRL-64": ["M", "der", "an IDP limits the kind of certificate once only"],
    "CRL-65": ["M", "context", "the entries are of the kind that the IDP says"],
    "CRL-68": ["S", "der", "no onlySomeReasons"],
    "CRL-69": [
      "P",
      "context",
      "the IDP has the scope of the predecessor's, and shares a URI with it",
    ],
    "CRL-71": ["M", "context", "a delta CRL has a critical deltaCRLIndicator"],
    "CRL-72": ["M", "context", "a delta's base is a complete CRL with a lower number"],
    "CRL-73": ["M", "context", "a delta has the AKI and IDP of its base"],
    "CRL-74": ["M", "context", "a delta and a complete CRL made together share a number"],
    "CRL-75": ["M", "der", "freshestCRL is not critical, and not in a delta"],
    "CRL-76": ["S", "der", "AIA has only caIssuers and is not critical"],
    "CRL-77": [
      "P",
      "context",
      "ExpiredCertsOnCRL is a GeneralizedTime, not critical; then expired entries stay",
    ],
    "CRL-78": ["M", "der", "no empty extension list; critical FALSE is not encoded"],
    "CRL-79": ["M", "der", "no extension twice"],
    "CRL-80": ["S", "der", "nothing beyond AKI, number and IDP (P: nothing unknown and critical)"],
  }),
} satisfies Record<string, Rule>;

export type RuleId = keyof typeof rules;
