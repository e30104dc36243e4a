import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { open, sendByForm, signIn, URL_OF_SANDBOX, USERS } from "../page.ts";

test("what is emailed is in the sandbox's mailbox, which the page links to", async () => {
  const { page } = await open();
  await signIn(page, USERS.ada);

  await sendByForm(page, { title: "Please read this by mail", email: true });

  const receipt = page.getByTestId("receipt");
  assert.match(await receipt.innerText(), /in-app, email/);
  const link = await receipt.getByRole("link", { name: "mailbox" }).getAttribute("href");
  assert.equal(new URL(link ?? "").origin, URL_OF_SANDBOX);
  const mail = await mailAbout("Please read this by mail");
  assert.deepEqual(mail.to, ["ada@example.com"]);
});

interface Mail {
  to: string[];
  subject: string;
  html: string | null;
}

async function mailAbout(title: string): Promise<Mail> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const answer = await fetch(`${URL_OF_SANDBOX}/mails`);
    const { items } = (await answer.json()) as { items: Mail[] };
    const found = items.find(({ subject, html }) => `${subject} ${html}`.includes(title));
    if (found) return found;
    await sleep(100);
  }
  throw new Error(`no mail about ${title} came`);
}
