import assert from "node:assert/strict";
import { before, test } from "node:test";
import { assertAccessible } from "../accessible.ts";
import { live, open, send, signIn, titled, URL_OF_PAGE, USERS } from "../page.ts";

const user = USERS.ada;

before(async () => {
  await send(user, "Something to look at", {
    actions: [
      { label: "Accept", action: "accept", primary: true },
      { label: "View", url: "/docs" },
    ],
  });
});

for (const colorScheme of ["light", "dark"] as const) {
  test(`axe finds nothing wrong in ${colorScheme}`, async () => {
    const { page } = await open({ colorScheme });
    await page.goto(URL_OF_PAGE);
    await page.getByRole("button", { name: user.name }).waitFor();
    await assertAccessible(page);
    await signIn(page, user);
    await titled(page, "Something to look at").first().waitFor();
    await page.getByRole("textbox", { name: "Title" }).fill("");
    await page.getByRole("button", { name: "Send", exact: true }).click();
    await page.locator(".field__problem").waitFor();
    await assertAccessible(page);
  });
}

test("axe finds nothing wrong on a phone, with the form open", async () => {
  const { page } = await open({ viewport: { width: 390, height: 844 } });
  await signIn(page, user);
  await page.getByRole("button", { name: "Send one" }).click();
  await page.getByRole("dialog", { name: "Send a notification" }).waitFor();
  await assertAccessible(page);
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
});

test("axe finds nothing wrong with a failed change, the help and an empty view", async () => {
  const { page } = await open();
  await signIn(page, user);
  await page.route("**/api/v1/notifications/**", (route) =>
    route.request().method() === "DELETE" ? route.abort() : route.continue(),
  );
  await page.keyboard.press("j");
  await page.keyboard.press("#");
  await page.getByRole("button", { name: "Dismiss" }).waitFor();
  await assertAccessible(page);
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keys" }).waitFor();
  await assertAccessible(page);
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Mark all as read" }).click();
  await page.getByRole("button", { name: "Unread", exact: true }).click();
  await page.getByText("Nothing unread").waitFor();
  await assertAccessible(page);
});

test("the keyboard is enough to sign in and to send", async () => {
  const { page } = await open();
  await page.goto(URL_OF_PAGE);
  await page.getByRole("button", { name: user.name }).waitFor();
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await live(page);
  await page.keyboard.press("Tab");
  await page.getByRole("link", { name: "Skip to notifications" }).waitFor();
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate("document.activeElement.id"), "inbox");
  await page.getByRole("textbox", { name: "Title" }).focus();
  await page.keyboard.press("ControlOrMeta+A");
  await page.keyboard.type("Typed by hand");
  await page.keyboard.press("Enter");
  await titled(page, "Typed by hand").waitFor();
});
