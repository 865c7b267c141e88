/** Object identifiers that certificates, requests and CRLs here may hold, as dotted text. */

/** Attribute types of names: RFC 4519, RFC 5280 appendix A, RFC 2985. */
export const attributeTypeOids = {
  C: "2.5.4.6",
  ST: "2.5.4.8",
  L: "2.5.4.7",
  street: "2.5.4.9",
  postalCode: "2.5.4.17",
  O: "2.5.4.10",
  OU: "2.5.4.11",
  CN: "2.5.4.3",
  DC: "0.9.2342.19200300.100.1.25",
  serialNumber: "2.5.4.5",
  surname: "2.5.4.4",
  givenName: "2.5.4.42",
  emailAddress: "1.2.840.113549.1.9.1",
  UID: "0.9.2342.19200300.100.1.1",
} as const;

/** Extensions of certificates, CRLs and CRL entries: RFC 5280 §4.2, §5.2, §5.3. */
export const extensionOids = {
  subjectKeyIdentifier: "2.5.29.14",
  keyUsage: "2.5.29.15",
  subjectAltName: "2.5.29.17",
  issuerAltName: "2.5.29.18",
  basicConstraints: "2.5.29.19",
  cRLNumber: "2.5.29.20",
  reasonCode: "2.5.29.21",
  invalidityDate: "2.5.29.24",
  deltaCRLIndicator: "2.5.29.27",
  issuingDistributionPoint: "2.5.29.28",
  certificateIssuer: "2.5.29.29",
  nameConstraints: "2.5.29.30",
  cRLDistributionPoints: "2.5.29.31",
  certificatePolicies: "2.5.29.32",
  policyMappings: "2.5.29.33",
  authorityKeyIdentifier: "2.5.29.35",
  policyConstraints: "2.5.29.36",
  extKeyUsage: "2.5.29.37",
  freshestCRL: "2.5.29.46",
  inhibitAnyPolicy: "2.5.29.54",
  expiredCertsOnCRL: "2.5.29.60",
  authorityInfoAccess: "1.3.6.1.5.5.7.1.1",
  subjectInfoAccess: "1.3.6.1.5.5.7.1.11",
  tlsFeature: "1.3.6.1.5.5.7.1.24",
  signedCertificateTimestamps: "1.3.6.1.4.1.11129.2.4.2",
  precertificatePoison: "1.3.6.1.4.1.11129.2.4.3",
} as const;

/** KeyPurposeIds: RFC 5280 §4.2.1.12. */
export const extKeyUsageOids = {
  anyExtendedKeyUsage: "2.5.29.37.0",
  serverAuth: "1.3.6.1.5.5.7.3.1",
  clientAuth: "1.3.6.1.5.5.7.3.2",
  codeSigning: "1.3.6.1.5.5.7.3.3",
  emailProtection: "1.3.6.1.5.5.7.3.4",
  timeStamping: "1.3.6.1.5.5.7.3.8",
  OCSPSigning: "1.3.6.1.5.5.7.3.9",
  precertificateSigning: "1.3.6.1.4.1.11129.2.4.4",
} as const;

/** Access methods: RFC 5280 §4.2.2.1. */
export const accessMethodOids = {
  ocsp: "1.3.6.1.5.5.7.48.1",
  caIssuers: "1.3.6.1.5.5.7.48.2",
} as const;

/** Attributes of certification requests: RFC 2985 §5.4. */
export const requestAttributeOids = {
  unstructuredName: "1.2.840.113549.1.9.2",
  challengePassword: "1.2.840.113549.1.9.7",
  extensionRequest: "1.2.840.113549.1.9.14",
} as const;

/** Public-key and signature algorithms, the refused ones too, so that a refusal can name them. */
export const algorithmOids = {
  rsaEncryption: "1.2.840.113549.1.1.1",
  md2WithRSAEncryption: "1.2.840.113549.1.1.2",
  md5WithRSAEncryption: "1.2.840.113549.1.1.4",
  sha1WithRSAEncryption: "1.2.840.113549.1.1.5",
  "id-RSASSA-PSS": "1.2.840.113549.1.1.10",
  sha256WithRSAEncryption: "1.2.840.113549.1.1.11",
  sha384WithRSAEncryption: "1.2.840.113549.1.1.12",
  sha512WithRSAEncryption: "1.2.840.113549.1.1.13",
  sha224WithRSAEncryption: "1.2.840.113549.1.1.14",
  "id-ecPublicKey": "1.2.840.10045.2.1",
  "ecdsa-with-SHA1": "1.2.840.10045.4.1",
  "ecdsa-with-SHA224": "1.2.840.10045.4.3.1",
  "ecdsa-with-SHA256": "1.2.840.10045.4.3.2",
  "ecdsa-with-SHA384": "1.2.840.10045.4.3.3",
  "ecdsa-with-SHA512": "1.2.840.10045.4.3.4",
  "id-dsa": "1.2.840.10040.4.1",
  "id-dsa-with-sha1": "1.2.840.10040.4.3",
  "id-dsa-with-sha256": "2.16.840.1.101.3.4.3.2",
  "id-X25519": "1.3.101.110",
  "id-X448": "1.3.101.111",
  "id-Ed25519": "1.3.101.112",
  "id-Ed448": "1.3.101.113",
} as const;

/** Named curves: RFC 5480 §2.1.1.1, RFC 5639. */
export const curveOids = {
  "P-192": "1.2.840.10045.3.1.1",
  "P-224": "1.3.132.0.33",
  "P-256": "1.2.840.10045.3.1.7",
  "P-384": "1.3.132.0.34",
  "P-521": "1.3.132.0.35",
  secp256k1: "1.3.132.0.10",
  brainpoolP256r1: "1.3.36.3.3.2.8.1.1.7",
  brainpoolP384r1: "1.3.36.3.3.2.8.1.1.11",
  brainpoolP512r1: "1.3.36.3.3.2.8.1.1.13",
} as const;
