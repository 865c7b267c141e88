/** The policy of a development home. */

export const developmentPolicy = `# Who may have which names. A change of issuers or profiles changes the policy's digest, which the
# grants in keeper/keeper.yaml name: the keys are held until they are granted again.
version: 1
issuers:
  root:
    profiles: []
  issuing:
    profiles: [server, client, peer]
    names:
      dns: { allow: ["exact:localhost", "subdomains:example.test", "wildcard:example.test"] }
      ip: { allow: ["127.0.0.0/8", "10.0.0.0/8"] }
profiles:
  server:
    kind: server
    lifetime: { default: 90d, maximum: 90d }
    keyTypes: [P-256, P-384, P-521, RSA-2048, RSA-3072, RSA-4096, Ed25519]
  client:
    kind: client
    lifetime: { default: 90d, maximum: 90d }
    keyTypes: [P-256, P-384, P-521, RSA-2048, RSA-3072, RSA-4096, Ed25519]
  peer:
    kind: peer
    lifetime: { default: 90d, maximum: 90d }
    keyTypes: [P-256, P-384, P-521, RSA-2048, RSA-3072, RSA-4096, Ed25519]
`;
