// minio-js.

"use strict";

const fs = require("node:fs");
const { PassThrough } = require("node:stream");
const { pipeline } = require("node:stream/promises");
const minio = require("minio");
const { serve, runAll } = require("./serving.cjs");

const PART_BYTES = 5 << 20;

function open(endpoint) {
  const url = new URL(endpoint.url);
  const client = new minio.Client({
    endPoint: url.hostname,
    port: Number(url.port),
    useSSL: url.protocol === "https:",
    accessKey: endpoint.access_key,
    secretKey: endpoint.secret_key,
    region: endpoint.region,
    partSize: PART_BYTES,
  });

  return {
    async put(bucket, key, path, contentType, metadata) {
      await client.fPutObject(bucket, key, path, { ...metadata, ...(contentType && { "Content-Type": contentType }) });
    },

    async put_stream(bucket, key, path) {
      await client.putObject(bucket, key, fs.createReadStream(path).pipe(new PassThrough()));
    },

    async get(bucket, key, path) {
      await pipeline(await client.getObject(bucket, key), fs.createWriteStream(path));
    },

    async get_range(bucket, key, path, first, last) {
      const part = await client.getPartialObject(bucket, key, first, last - first + 1);
      await pipeline(part, fs.createWriteStream(path));
    },

    async list_keys(bucket, prefix) {
      const keys = [];
      for await (const item of client.listObjectsV2(bucket, prefix, true)) keys.push(item.name);
      return keys;
    },

    delete: (bucket, key) => client.removeObject(bucket, key),

    async describe(bucket, key) {
      const { "content-type": contentType, ...metadata } = (await client.statObject(bucket, key)).metaData;
      return [contentType, metadata];
    },

    async copy(bucket, source, target) {
      const found = new minio.CopySourceOptions({ Bucket: bucket, Object: source });
      await client.copyObject(found, new minio.CopyDestinationOptions({ Bucket: bucket, Object: target }));
    },

    presign_get: (bucket, key) => client.presignedGetObject(bucket, key, 3600),

    presign_put: (bucket, key) => client.presignedPutObject(bucket, key, 3600),

    async put_many(bucket, files) {
      await runAll((key, path) => client.putObject(bucket, key, fs.readFileSync(path)), files);
    },

    async get_many(bucket, files) {
      await runAll((key, path) => this.get(bucket, key, path), files);
    },

    async delete_tree(bucket, prefix, keys) {
      const errors = (await client.removeObjects(bucket, keys)).filter((error) => error);
      if (errors.length) throw new Error(`not deleted: ${JSON.stringify(errors)}`);
    },
  };
}

serve(open);
