import { setImmediate } from "node:timers/promises";
import { expect, test } from "vitest";
import { takeTurns } from "../../src/issuance/turns.ts";

test("turns come in order, so many in one round of the event loop, and other work in between", async () => {
  const turn = takeTurns(2);
  const seen: (number | string)[] = [];
  const all = [0, 1, 2, 3, 4].map((number) => turn().then(() => seen.push(number)));
  for (let round = 0; round < 3; round++) {
    await setImmediate();
    seen.push("other");
  }
  await Promise.all(all);
  expect(seen).toEqual([0, 1, "other", 2, 3, "other", 4, "other"]);
});

test("whoever comes while others wait gets its turn after them", async () => {
  const turn = takeTurns(1);
  const seen: string[] = [];
  const first = turn().then(() => {
    seen.push("first");
    return turn().then(() => seen.push("again"));
  });
  await Promise.all([first, turn().then(() => seen.push("second"))]);
  await turn().then(() => seen.push("last"));
  expect(seen).toEqual(["first", "second", "again", "last"]);
});
