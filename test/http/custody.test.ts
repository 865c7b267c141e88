import { afterAll, beforeEach, expect, test } from "vitest";
import { z } from "zod";
import { CountersignError } from "../../src/errors.ts";
import { PROPOSAL_OCTETS, SIGNED_BODY_OCTETS } from "../../src/http/body.ts";
import { apiKey, startSites, type Asked } from "../support/http-sites.ts";
import { signInAs } from "../support/operator-session.ts";

const site = await startSites();
const { api, domain, sites, logged, close } = site;
const { custody } = domain;
const session = await signInAs(site, "alice", "bob");
afterAll(close);
beforeEach(() => {
  custody.calls.length = 0;
  custody.fail = undefined;
});

const { id, digest, keyId } = { ...custody.ceremony, keyId: custody.key.keyId };

// No JSON, no UTF-8, and an end of line: a route must not read what somebody signed.
const octets = Buffer.from('{"b":1, "a":"\u00e9"}\r\n\0\xff', "latin1");
const statement = octets.toString("base64");
const signature = "-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----\n";
const file = Buffer.from("age-encryption.org/v1\n-> X25519 hunter2-share\n\0\xff", "latin1");

const signed = { statement: octets, signature };
const address = "127.0.0.1";

interface Case {
  /** Of the route. */
  readonly id: string;
  readonly path: string;
  readonly method?: string;
  readonly body?: Record<string, unknown>;
  readonly status: number;
  /** What the domain is asked. */
  readonly asked?: readonly unknown[];
}

const alice = { kind: "operator", id: "alice", via: "session" };

/** Those that whoever has the signature may use, and nobody else needs to. */
const signedCases: readonly Case[] = [
  {
    id: "approveCeremony",
    path: `/v1/ceremonies/${id}/approvals`,
    body: { statement, signature },
    status: 200,
    asked: ["approve", id, signed, address],
  },
  {
    id: "abortCeremony",
    path: `/v1/ceremonies/${digest}/abort`,
    body: { statement, signature },
    status: 200,
    asked: ["abort", digest, signed, address],
  },
  {
    id: "submitShare",
    path: `/v1/unlocks/${id}/submissions`,
    body: { submission: statement, signature, share: file.toString("base64") },
    status: 202,
    asked: ["submit", id, signed, file, address],
  },
  {
    id: "confirmShare",
    path: `/v1/keys/${keyId}/confirmations`,
    body: { statement, signature },
    status: 200,
    asked: ["confirm", keyId, signed, address],
  },
  {
    id: "proveShare",
    path: `/v1/keys/${keyId}/drills`,
    method: "PUT",
    body: { statement, signature },
    status: 200,
    asked: ["drill", keyId, signed, address],
  },
  {
    id: "lockKey",
    path: `/v1/keys/${keyId}/lock`,
    body: { statement, signature },
    status: 204,
    asked: ["lock", keyId, signed, address],
  },
  {
    id: "panic",
    path: "/v1/panic",
    body: { statement, signature },
    status: 204,
    asked: ["panic", signed, address],
  },
  {
    id: "requestEnrolment",
    path: "/v1/enrolments",
    body: { statement, signature },
    status: 201,
    asked: ["request", signed, address],
  },
  {
    id: "proveRecipient",
    path: `/v1/enrolments/${id}/proof`,
    body: { statement, signature },
    status: 200,
    asked: ["prove", id, signed, address],
  },
];

const operatorCases: readonly Case[] = [
  {
    id: "proposeCeremony",
    path: "/v1/ceremonies",
    body: {
      kind: "sign",
      keyId,
      reason: "issue intermediate G2",
      notAfter: "2026-11-28T21:00:00+01:00",
      artefacts: [{ tbs: statement, lint: statement }],
    },
    status: 201,
    asked: [
      "propose",
      {
        kind: "sign",
        keyId,
        reason: "issue intermediate G2",
        notAfter: new Date("2026-11-28T20:00:00Z"),
        artefacts: [{ tbs: octets, lint: octets }],
      },
      alice,
    ],
  },
  {
    id: "listCeremonies",
    path: `/v1/ceremonies?state=gathering&kind=sign&keyId=${keyId}&cursor=9&limit=2`,
    status: 200,
    asked: ["list", { state: "gathering", kind: "sign", keyId, cursor: 9, limit: 2 }],
  },
  { id: "getCeremony", path: `/v1/ceremonies/${id}`, status: 200, asked: ["ceremony", id] },
  { id: "getCeremonyPlan", path: `/v1/ceremonies/${id}/plan`, status: 200, asked: ["plan", id] },
  {
    id: "openUnlock",
    path: "/v1/unlocks",
    body: { ceremony: digest, gatherSeconds: 600 },
    status: 201,
    asked: ["open", digest, 600, alice],
  },
  { id: "getUnlock", path: `/v1/unlocks/${id}`, status: 200, asked: ["unlock", id] },
  { id: "listKeys", path: "/v1/keys", status: 200, asked: ["keys"] },
  { id: "getKey", path: `/v1/keys/${keyId}`, status: 200, asked: ["key", keyId] },
  {
    id: "getShareSet",
    path: `/v1/keys/${keyId}/share-set?shareSet=${digest}`,
    status: 200,
    asked: ["share set", keyId, digest],
  },
  {
    id: "getShare",
    path: `/v1/keys/${keyId}/shares/1`,
    status: 200,
    asked: ["share file", keyId, 1, undefined, alice],
  },
  {
    id: "beginDrill",
    path: `/v1/keys/${keyId}/drills`,
    body: { index: 1 },
    status: 201,
    asked: ["challenge", keyId, 1, alice],
  },
  { id: "getInbox", path: "/v1/inbox", status: 200, asked: ["inbox", alice] },
  { id: "getRoster", path: "/v1/roster", status: 200 },
  { id: "listEnrolments", path: "/v1/enrolments", status: 200, asked: ["enrolments"] },
];

const publicCases: readonly Case[] = [
  {
    id: "getCeremonyStatement",
    path: `/v1/ceremonies/${digest}/statement`,
    status: 200,
    asked: ["ceremony statement", digest],
  },
  {
    id: "getUnlockStatement",
    path: `/v1/unlocks/${id}/statement`,
    status: 200,
    asked: ["unlock statement", id],
  },
  {
    id: "getEnrolmentChallenge",
    path: `/v1/enrolments/${id}/challenge`,
    status: 200,
    asked: ["enrolment challenge", id],
  },
];

const cases = [...signedCases, ...operatorCases, ...publicCases];

const routeOf = (one: Case) => sites.routes.find((route) => route.id === one.id)!;

const askedOf = ({ method, body }: Case): Asked => ({
  ...(method === undefined ? {} : { method }),
  ...(body === undefined ? {} : { body }),
});

const tokenFor = (one: Case): Asked =>
  routeOf(one).access === "operator" ? { token: session.alice } : {};

const named = <T extends Case>(list: readonly T[]) => list.map((one) => ({ id: one.id, one }));

test.for(named(cases))("$id asks the domain once, and answers as described", async ({ one }) => {
  const answer = await api(one.path, { ...askedOf(one), ...tokenFor(one) });
  expect(answer.status).toBe(one.status);
  // ST-33: what was signed reaches whoever checks it octet by octet.
  expect(custody.calls).toEqual(one.asked === undefined ? [] : [one.asked]);
  expect(answer.headers["cache-control"]).toBe("no-store");
  const { content } = routeOf(one).answers[one.status]!;
  const [[type, schema] = []] = Object.entries(content ?? {});
  expect(answer.headers["content-type"]?.split(";")[0]).toBe(type);
  if (schema instanceof z.ZodType) {
    expect(schema.safeParse(answer.json).error).toBeUndefined();
  }
});

test("these are all routes of ceremonies, unlocks, keys and people", () => {
  const resources = ["ceremonies", "unlocks", "keys", "panic", "roster", "enrolments", "inbox"];
  const ids = sites.routes
    .filter(({ path }) => resources.some((name) => path.split("/")[2] === name))
    .map((route) => route.id);
  expect(ids.toSorted()).toEqual(cases.map((one) => one.id).toSorted());
});

test("CUSTODY 6.3: what is signed needs no session, and nothing else is public", () => {
  const open = cases.filter((one) => routeOf(one).access === "public");
  expect(open).toEqual([...signedCases, ...publicCases]);
  expect(operatorCases.every((one) => routeOf(one).access === "operator")).toBe(true);
});

test.for(named(signedCases))(
  "ST-70: $id takes no session and no API key in place of a signature",
  async ({ one }) => {
    const { signature: _, ...unsigned } = one.body!;
    for (const token of [session.alice, apiKey]) {
      const answer = await api(one.path, { ...askedOf(one), body: unsigned, token });
      expect([answer.status, answer.json["code"]]).toEqual([400, "request-malformed"]);
    }
    expect(custody.calls).toEqual([]);
    // Whoever sends one all the same is the one who signed, and nobody else.
    await api(one.path, { ...askedOf(one), token: session.bob });
    expect(custody.calls).toEqual([one.asked]);
  },
);

test.for(named(cases.filter(({ body }) => body !== undefined)))(
  "ST-71: $id changes nothing for a page of another site",
  async ({ one }) => {
    for (const from of ["cross-site", "same-site"]) {
      const answer = await api(one.path, {
        ...askedOf(one),
        ...tokenFor(one),
        headers: { "Sec-Fetch-Site": from },
      });
      expect([answer.status, answer.json["code"]]).toEqual([403, "forbidden"]);
    }
    expect(custody.calls).toEqual([]);
  },
);

const padded = (body: Record<string, unknown>, length: number): string =>
  JSON.stringify(body).padEnd(length, " ");

test.for(named(signedCases))("ST-36: $id reads 8 KiB and not an octet more", async ({ one }) => {
  expect(SIGNED_BODY_OCTETS).toBe(8 * 1024);
  const send = (length: number) =>
    api(one.path, {
      method: one.method ?? "POST",
      headers: { "Content-Type": "application/json" },
      body: padded(one.body!, length),
    });
  const answer = await send(SIGNED_BODY_OCTETS + 1);
  expect([answer.status, answer.json["code"]]).toEqual([413, "request-too-large"]);
  expect(custody.calls).toEqual([]);
  expect((await send(SIGNED_BODY_OCTETS)).status).toBe(one.status);
});

test("a proposal may carry a mebibyte", async () => {
  const body = (length: number) => {
    const empty = JSON.stringify({ kind: "sign", keyId, reason: "r", artefacts: [{ tbs: "" }] });
    const tbs = "A".repeat(Math.floor((length - empty.length) / 4) * 4);
    return { kind: "sign", keyId, reason: "r", artefacts: [{ tbs }] };
  };
  const send = (length: number) =>
    api("/v1/ceremonies", { token: session.alice, body: body(length) });
  expect((await send(PROPOSAL_OCTETS)).status).toBe(201);
  expect((await send(PROPOSAL_OCTETS + 1024)).status).toBe(413);
  expect(custody.calls).toHaveLength(1);
});

test.for(named(cases.filter(({ body }) => body !== undefined)))(
  "ST-33: $id refuses a field that it does not know",
  async ({ one }) => {
    for (const name of ["extra", "__proto__"]) {
      const answer = await api(one.path, {
        ...askedOf(one),
        ...tokenFor(one),
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(one.body).replace("{", `{"${name}":{"x":1},`),
      });
      expect(answer.status).toBe(400);
      expect(answer.json["errors"]).toEqual([{ path: `body.${name}`, message: "unknown field" }]);
    }
    expect(custody.calls).toEqual([]);
  },
);

test.for([
  { path: "/v1/ceremonies/x", at: "path.id" },
  { path: `/v1/ceremonies/${id.toUpperCase()}/plan`, at: "path.id" },
  { path: "/v1/unlocks/sha256:00", at: "path.id" },
  { path: `/v1/unlocks/${id}0/statement`, at: "path.id" },
  { path: "/v1/keys/issuing", at: "path.id" },
  { path: `/v1/keys/${keyId}/shares/0`, at: "path.index" },
  { path: `/v1/keys/${keyId}/shares/33`, at: "path.index" },
  { path: `/v1/keys/${keyId}/shares/01`, at: "path.index" },
  { path: `/v1/keys/${keyId}/shares/1?shareSet=7`, at: "query.shareSet" },
  { path: `/v1/keys/${keyId}/shares/1?epoch=7`, at: "query.epoch" },
  { path: "/v1/ceremonies?state=open", at: "query.state" },
  { path: "/v1/ceremonies?limit=201", at: "query.limit" },
  { path: "/v1/enrolments/x/challenge", at: "path.id" },
])("request-malformed names the place: $path", async ({ path, at }) => {
  const answer = await api(path, { token: session.alice });
  expect([answer.status, answer.json["code"]]).toEqual([400, "request-malformed"]);
  expect(answer.json["errors"]).toContainEqual({ path: at, message: expect.any(String) });
  expect(custody.calls).toEqual([]);
});

test.for([
  { name: "another kind", change: { kind: "destroy" }, at: "body.kind" },
  { name: "no reason", change: { reason: "" }, at: "body.reason" },
  {
    name: "a TBS that is not base64",
    change: { artefacts: [{ tbs: "%" }] },
    at: "body.artefacts.0.tbs",
  },
  { name: "no artefact", change: { artefacts: [] }, at: "body.artefacts" },
  { name: "a date in words", change: { notAfter: "tomorrow" }, at: "body.notAfter" },
  { name: "a plan as JSON", change: { plan: {} }, at: "body.plan" },
])("a proposal with $name is refused", async ({ change, at }) => {
  const body = { kind: "sign", keyId, reason: "r", ...change };
  const answer = await api("/v1/ceremonies", { token: session.alice, body });
  expect(answer.status).toBe(400);
  expect(answer.json["errors"]).toContainEqual({ path: at, message: expect.any(String) });
  expect(custody.calls).toEqual([]);
});

test("CUSTODY 6.3: a statement comes as the note that the keeper signed, to anybody", async () => {
  for (const resource of ["ceremonies", "unlocks"]) {
    for (const name of [id, digest]) {
      const answer = await api(`/v1/${resource}/${name}/statement`);
      expect(answer.octets).toEqual(Buffer.from(custody.note));
      expect(answer.headers["content-type"]).toBe("text/plain; charset=utf-8");
      expect(answer.headers["cache-control"]).toBe("no-store");
    }
  }
});

test("a plan comes octet by octet", async () => {
  const answer = await api(`/v1/ceremonies/${id}/plan`, { token: session.alice });
  expect(answer.octets).toEqual(Buffer.from(custody.plan));
});

test("what is made has an address", async () => {
  const proposed = await api("/v1/ceremonies", {
    token: session.alice,
    body: { kind: "roster", reason: "r", plan: statement },
  });
  expect(proposed.headers.location).toBe(`/v1/ceremonies/${id}`);
  const opened = await api("/v1/unlocks", { token: session.alice, body: { ceremony: id } });
  expect(opened.headers.location).toBe(`/v1/unlocks/${id}`);
  expect(custody.calls[1]).toEqual(["open", id, undefined, alice]);
  const enrolled = await api("/v1/enrolments", { body: { statement, signature } });
  expect(enrolled.headers.location).toBe(`/v1/enrolments/${id}/challenge`);
});

test("ST-60: a share file is its custodian's, and nobody else's", async () => {
  const path = `/v1/keys/${keyId}/shares/2`;
  const other = await api(path, { token: session.alice });
  expect([other.status, other.json["code"]]).toEqual([403, "forbidden"]);
  // Whoever asked is told to the domain, which records it.
  expect(custody.calls).toEqual([["share file", keyId, 2, undefined, alice]]);
  const own = await api(`${path}?shareSet=${digest}`, { token: session.bob });
  expect(own.octets).toEqual(Buffer.from(custody.ciphertext));
  expect(own.headers["content-type"]).toBe("application/octet-stream");
  expect(own.headers["content-disposition"]).toBe('attachment; filename="share-2.age"');
});

test("CUSTODY 6.4: no view shows ciphertext, whatever the store hands out", async () => {
  const forms = (["base64", "base64url", "hex", "latin1"] as const).map((encoding) =>
    Buffer.from(custody.ciphertext).toString(encoding).slice(0, 40),
  );
  forms.push("hunter2", JSON.stringify(custody.ciphertext).slice(0, 60));
  const files = ["getShare", "getEnrolmentChallenge"];
  for (const one of cases.filter((other) => !files.includes(other.id))) {
    const answer = await api(one.path, { ...askedOf(one), ...tokenFor(one) });
    expect([one.id, answer.status]).toEqual([one.id, one.status]);
    for (const form of forms) expect(answer.octets.toString("latin1")).not.toContain(form);
  }
});

test("a refusal to give a share has none", async () => {
  const answer = await api(`/v1/unlocks/${id}/submissions`, {
    body: { submission: statement, signature },
  });
  expect(answer.status).toBe(202);
  expect(custody.calls).toEqual([["submit", id, signed, new Uint8Array(), address]]);
});

test("ST-27: who gave a wrong share is told who, what is missing, and that the others stay", async () => {
  const members = { operator: "bob", given: ["alice"], threshold: 3, missing: 2 };
  custody.fail = new CountersignError(
    "share-wrong",
    "bob: the share is well-formed and is not share 2 of this key. Only this share is refused",
    { members },
  );
  const answer = await api(`/v1/unlocks/${id}/submissions`, {
    body: { submission: statement, signature, share: file.toString("base64") },
  });
  expect(answer.status).toBe(422);
  expect(answer.headers["content-type"]).toContain("application/problem+json");
  expect(answer.json).toMatchObject({ code: "share-wrong", title: "Share is wrong", ...members });
  const described = routeOf(signedCases[2]!).answers[422]!.content!["application/problem+json"];
  expect((described as z.ZodType).safeParse(answer.json).error).toBeUndefined();
  const advice = await api(answer.json["type"] as string);
  expect(advice.text).toContain("send it again");
  expect(advice.text).toContain("Nobody else's share is lost");
});

test("who answered what is in the progress of an approval", async () => {
  const answer = await api(`/v1/ceremonies/${id}/approvals`, { body: { statement, signature } });
  expect(answer.json).toEqual({
    id,
    digest,
    state: "gathering",
    people: [
      { operator: "alice", state: "approved", role: "officer", at: "2026-11-21T20:03:00.000Z" },
      { operator: "bob", state: "given", role: "custodian", at: "2026-11-21T20:03:00.000Z" },
      { operator: "carol", state: "waiting" },
    ],
    missing: { roles: { witness: 1 }, shares: 2, people: ["carol"] },
  });
});

test("an accepted share is answered with what is missing", async () => {
  const answer = await api(`/v1/unlocks/${id}/submissions`, {
    body: { submission: statement, signature, share: file.toString("base64") },
  });
  expect(answer.json).toEqual({
    given: ["bob"],
    missing: { roles: {}, shares: 2 },
    state: "gathering",
  });
});

test("ST-15: neither what was sent nor what came back is logged", async () => {
  const secret = file.toString("base64");
  const bodies = [
    { submission: statement, signature, share: secret },
    { submission: statement, signature, share: secret, extra: secret },
    { submission: secret, signature: secret, share: "%" },
  ];
  const failures = [
    undefined,
    new CountersignError("share-checksum", "a character is wrong"),
    Object.assign(new Error("the keeper is gone"), { share: secret, sql: file.toString() }),
  ];
  for (const failure of failures) {
    custody.fail = failure;
    for (const body of bodies) await api(`/v1/unlocks/${id}/submissions`, { body });
  }
  custody.fail = undefined;
  await api(`/v1/unlocks/${secret}/submissions`, { body: bodies[0]! });
  await api(`/v1/keys/${keyId}/shares/2`, { token: session.bob });
  await api(`/v1/unlocks/${id}/submissions`, {
    headers: { "Content-Type": "application/json" },
    body: `{"share":"${secret}`,
  });
  const text = logged();
  expect(text).toContain("/v1/unlocks/:id/submissions");
  expect(text).toContain("the keeper is gone");
  for (const one of [secret.slice(0, 24), "hunter2", statement, "U1NIU0lH", "X25519"]) {
    expect(text).not.toContain(one);
  }
});

test("OpenAPI says how long a submission may be", async () => {
  const { paths } = (await api("/openapi.json")).json as {
    paths: Record<string, Record<string, { requestBody: { description: string } }>>;
  };
  expect(paths["/v1/unlocks/{id}/submissions"]!["post"]!.requestBody.description).toBe(
    "At most 8192 octets",
  );
});
