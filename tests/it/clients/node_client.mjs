// @kubernetes/client-node against a Coracle: lists, pages, patches, applies, watches, informers and streams.
// Each function is a rule; the first that fails ends it. Run with KUBECONFIG set, from a directory whose node_modules hold the client.

import assert from 'node:assert/strict';
import { Readable, Writable } from 'node:stream';
import { once } from 'node:events';
import net from 'node:net';
import http from 'node:http';
import { setHeaderOptions, PatchStrategy } from '@kubernetes/client-node';
import * as k8s from '@kubernetes/client-node';

const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);

/** The error of a call that must fail with this code. */
async function refused(code, call) {
  try {
    await call();
  } catch (error) {
    assert.equal(error.code, code, `${error}`);
    return JSON.parse(error.body);
  }
  throw new Error('it was not refused');
}

/** A stream that keeps what is written to it. */
function sink() {
  const stream = new Writable({
    write(piece, _, done) {
      stream.text += piece;
      stream.emit('grew');
      done();
    },
  });
  stream.text = '';
  return stream;
}

async function until(holds, emitter, event) {
  while (!holds()) await once(emitter, event);
}

/** Creates a pod and waits until it runs. */
async function running(namespace, name, container) {
  const pod = { metadata: { name }, spec: { terminationGracePeriodSeconds: 1, containers: [{ name: 'c', image: 'busybox', ...container }] } };
  await core.createNamespacedPod({ namespace, body: pod });
  await new Promise((resolve, reject) => {
    const watch = new k8s.Watch(config).watch(
      `/api/v1/namespaces/${namespace}/pods`,
      { fieldSelector: `metadata.name=${name}` },
      (type, object) => {
        const ready = object.status?.conditions?.find((condition) => condition.type === 'Ready');
        if (ready?.status === 'True') watch.then((controller) => controller.abort()).then(resolve);
      },
      (error) => error && error.name !== 'AbortError' && reject(error),
    );
  });
}

const rules = {
  async objects_are_created_listed_patched_and_deleted(namespace) {
    const made = await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: 'a' }, data: { k: 'one' } } });
    assert.ok(made.metadata.creationTimestamp instanceof Date);
    const merge = setHeaderOptions('Content-Type', PatchStrategy.MergePatch);
    const patched = await core.patchNamespacedConfigMap({ name: 'a', namespace, body: { data: { l: 'two' } } }, merge);
    assert.deepEqual(patched.data, { k: 'one', l: 'two' });
    const json = setHeaderOptions('Content-Type', PatchStrategy.JsonPatch);
    const tested = [{ op: 'test', path: '/data/k', value: 'one' }, { op: 'replace', path: '/data/k', value: 'three' }];
    assert.equal((await core.patchNamespacedConfigMap({ name: 'a', namespace, body: tested }, json)).data.k, 'three');
    for (const name of ['b', 'c']) await core.createNamespacedConfigMap({ namespace, body: { metadata: { name } } });
    const page = await core.listNamespacedConfigMap({ namespace, limit: 2 });
    assert.equal(page.items.length, 2);
    const rest = await core.listNamespacedConfigMap({ namespace, limit: 99, _continue: page.metadata._continue });
    const names = [...page.items, ...rest.items].map((item) => item.metadata.name).filter((name) => name.length === 1);
    assert.deepEqual(names, ['a', 'b', 'c']);
    await core.deleteNamespacedConfigMap({ name: 'a', namespace });
    assert.equal((await refused(404, () => core.readNamespacedConfigMap({ name: 'a', namespace }))).reason, 'NotFound');
    const invalid = await refused(422, () => core.createNamespacedService({ namespace, body: { metadata: { name: 's' }, spec: { ports: [{ port: 0, targetPort: 1 }] } } }));
    assert.equal(invalid.details.causes[0].field, 'spec.ports[0].port');
  },

  async fields_are_applied_and_owned(namespace) {
    const apply = setHeaderOptions('Content-Type', PatchStrategy.ServerSideApply);
    const body = (replicas) => ({
      apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'web', namespace },
      spec: { replicas, selector: { matchLabels: { app: 'web' } },
        template: { metadata: { labels: { app: 'web' } }, spec: { containers: [{ name: 'web', image: 'nginx' }] } } },
    });
    const made = await apps.patchNamespacedDeployment({ name: 'web', namespace, body: body(0), fieldManager: 'node' }, apply);
    assert.equal(made.metadata.managedFields[0].manager, 'node');
    const conflict = await refused(409, () => apps.patchNamespacedDeployment({ name: 'web', namespace, body: body(1), fieldManager: 'other' }, apply));
    assert.match(conflict.message, /conflict with "node"/);
    const forced = await apps.patchNamespacedDeployment({ name: 'web', namespace, body: body(1), fieldManager: 'other', force: true }, apply);
    assert.equal(forced.spec.replicas, 1);
    const objects = k8s.KubernetesObjectApi.makeApiClient(config);
    const read = await objects.read({ apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'web', namespace } });
    assert.equal(read.spec.replicas, 1);
    const patched = await objects.patch({ ...body(0) }, undefined, undefined, 'node', true, PatchStrategy.ServerSideApply);
    assert.equal(patched.spec.replicas, 0);
    await objects.delete(read);
  },

  async a_watch_tells_every_change_in_order(namespace) {
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const start = (await core.listNamespacedConfigMap({ namespace })).metadata.resourceVersion;
    const seen = [];
    const over = new Promise((resolve, reject) => {
      const query = { resourceVersion: start, fieldSelector: 'metadata.name=w' };
      const watch = new k8s.Watch(config).watch(path, query, (type, object) => {
        seen.push(`${type} ${object.data.k}`);
        if (type === 'DELETED') watch.then((controller) => controller.abort()).then(resolve);
      }, (error) => error && error.name !== 'AbortError' && reject(error));
    });
    await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: 'w' }, data: { k: '1' } } });
    await core.replaceNamespacedConfigMap({ name: 'w', namespace, body: { metadata: { name: 'w' }, data: { k: '2' } } });
    await core.deleteNamespacedConfigMap({ name: 'w', namespace });
    await over;
    assert.deepEqual(seen, ['ADDED 1', 'MODIFIED 2', 'DELETED 2']);
  },

  async an_informer_keeps_what_there_is(namespace) {
    await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: 'before', labels: { informed: 'yes' } } } });
    const list = () => core.listNamespacedConfigMap({ namespace, labelSelector: 'informed' });
    const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, list, 'informed');
    const told = [];
    const heard = new Writable({ objectMode: true });
    for (const verb of ['add', 'update', 'delete']) {
      informer.on(verb, (object) => { told.push(`${verb} ${object.metadata.name}`); heard.emit('told'); });
    }
    informer.on('error', (error) => { if (error.name !== 'AbortError') throw error; });
    await informer.start();
    await until(() => told.includes('add before'), heard, 'told');
    await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: 'after', labels: { informed: 'yes' } } } });
    await until(() => told.includes('add after'), heard, 'told');
    await core.deleteNamespacedConfigMap({ name: 'before', namespace });
    await until(() => told.includes('delete before'), heard, 'told');
    assert.deepEqual(informer.list().map((object) => object.metadata.name), ['after']);
    await informer.stop();
  },

  async exec_carries_streams_and_the_exit_code(namespace) {
    await running(namespace, 'p', { command: ['sleep', '9999'] });
    const [out, err] = [sink(), sink()];
    const status = await new Promise((resolve, reject) => {
      const input = Readable.from(['hello\n']);
      const command = ['sh', '-c', 'read word; echo heard $word; echo err >&2; exit 3'];
      new k8s.Exec(config).exec(namespace, 'p', 'c', command, out, err, input, false, resolve).catch(reject);
    });
    assert.equal(out.text, 'heard hello\n');
    assert.equal(err.text, 'err\n');
    assert.equal(status.details.causes.find((cause) => cause.reason === 'ExitCode').message, '3');
  },

  async logs_are_followed(namespace) {
    await running(namespace, 'p', { command: ['sh', '-c', 'echo one; echo two; sleep 9999'] });
    const out = sink();
    const controller = await new k8s.Log(config).log(namespace, 'p', 'c', out, { follow: true });
    await until(() => out.text === 'one\ntwo\n', out, 'grew');
    controller.abort();
    assert.equal(await core.readNamespacedPodLog({ name: 'p', namespace, tailLines: 1 }), 'two\n');
  },

  async ports_are_forwarded(namespace) {
    await running(namespace, 'web', { image: 'nginx:1.27', ports: [{ containerPort: 80 }] });
    const forward = new k8s.PortForward(config);
    const server = net.createServer((socket) => {
      forward.portForward(namespace, 'web', [80], socket, null, socket);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const request = http.get({ port: server.address().port, host: '127.0.0.1', path: '/path', agent: false });
    const [answer] = await once(request, 'response');
    let body = '';
    for await (const piece of answer) body += piece;
    assert.equal(answer.statusCode, 200);
    assert.match(body, /GET \/path/);
    server.close();
  },
};

for (const [name, rule] of Object.entries(rules)) {
  const namespace = name.replaceAll('_', '-').slice(0, 60);
  await core.createNamespace({ body: { metadata: { name: namespace } } });
  await rule(namespace);
  console.log(name);
}
process.exit(0);
