// Drives a running platform with Cloudflare's own client, to see that paths and shapes are theirs.
// CLOISTER_URL (http://127.0.0.1:8787), CLOISTER_TOKEN, PROGRAM (a file to deploy as an http Worker),
// ARGS (its arguments as JSON). Exits with 0 when every call gave what it should.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import Cloudflare, { toFile } from 'cloudflare';

const { CLOISTER_URL, CLOISTER_TOKEN, PROGRAM, ARGS = '[]' } = process.env;
assert(CLOISTER_URL && CLOISTER_TOKEN && PROGRAM, 'set CLOISTER_URL, CLOISTER_TOKEN and PROGRAM');
const account_id = 'default';
const dispatch_namespace = 'cloudflare-check';
const client = new Cloudflare({
  baseURL: `${CLOISTER_URL}/client/v4`,
  apiToken: CLOISTER_TOKEN,
  maxRetries: 0,
});
const { namespaces } = client.workersForPlatforms.dispatch;
const where = { account_id, dispatch_namespace };

// Metadata goes as one JSON part, as Cloudflare's documentation has it.
const upload = async (metadata) => ({
  metadata: await toFile(Buffer.from(JSON.stringify(metadata)), 'metadata', { type: 'application/json' }),
  files: { program: await toFile(await readFile(PROGRAM), 'program') },
});
const refused = async (promise, status, code) => {
  const error = await promise.then(() => assert.fail('it was not refused'), (error) => error);
  assert.equal(error.status, status, error.message);
  assert.equal(error.errors[0].code, code);
};

const made = await namespaces.create({ account_id, name: dispatch_namespace });
assert.equal(made.namespace_name, dispatch_namespace);
try {
  const all = [];
  for await (const namespace of namespaces.list({ account_id })) all.push(namespace.namespace_name);
  assert(all.includes(dispatch_namespace));
  assert.equal((await namespaces.get(dispatch_namespace, { account_id })).namespace_id, made.namespace_id);

  const metadata = {
    main_module: 'program',
    bindings: [{ type: 'plain_text', name: 'MESSAGE', text: 'hello' }],
    tags: ['gold'],
    cloister: { contract: 'http', args: JSON.parse(ARGS) },
  };
  const script = await namespaces.scripts.update('shop', { ...where, ...(await upload(metadata)) });
  assert.equal(script.id, 'shop');
  assert(script.startup_time_ms >= 0);
  const got = await namespaces.scripts.get('shop', where);
  assert.equal(got.script.id, 'shop');
  assert.equal(got.dispatch_namespace, dispatch_namespace);

  const settings = await namespaces.scripts.settings.get('shop', where);
  assert.equal(settings.bindings[0].text, 'hello');
  const bindings = [];
  for await (const binding of namespaces.scripts.bindings.get('shop', where)) bindings.push(binding.name);
  assert.deepEqual(bindings, ['MESSAGE']);

  await namespaces.scripts.secrets.update('shop', { ...where, name: 'KEY', text: 's3cret', type: 'secret_text' });
  assert.equal((await namespaces.scripts.secrets.get('KEY', { ...where, script_name: 'shop' })).name, 'KEY');
  const secrets = [];
  for await (const secret of namespaces.scripts.secrets.list('shop', where)) secrets.push(secret.name);
  assert.deepEqual(secrets, ['KEY']);
  await namespaces.scripts.secrets.delete('KEY', { ...where, script_name: 'shop' });

  await namespaces.scripts.tags.delete('gold', { ...where, script_name: 'shop' });
  await namespaces.scripts.tags.update('shop', { ...where, body: ['silver'] });
  const tags = [];
  for await (const tag of namespaces.scripts.tags.list('shop', where)) tags.push(tag);
  assert.deepEqual(tags, ['silver']);

  const content = await namespaces.scripts.content.get('shop', where);
  assert.deepEqual(Buffer.from(await content.arrayBuffer()), await readFile(PROGRAM));

  await refused(namespaces.scripts.get('nobody', where), 404, 10007);
  await refused(namespaces.get('nowhere', { account_id }), 404, 100119);
  const logpush = await upload({ ...metadata, logpush: true });
  await refused(namespaces.scripts.update('shop', { ...where, ...logpush }), 400, 10001);

  await client.workers.scripts.update('cloudflare-check', { account_id, ...(await upload(metadata)) });
  const scripts = [];
  for await (const one of client.workers.scripts.list({ account_id })) scripts.push(one.id);
  assert(scripts.includes('cloudflare-check'));
  await client.workers.scripts.delete('cloudflare-check', { account_id });
  await namespaces.scripts.delete('shop', where);
} finally {
  await namespaces.delete(dispatch_namespace, { account_id });
}
console.log('every call of the official client gave what it should');
