// AWS SDK for JavaScript v3: single PUTs stream from a file (so they carry trailers over http, too), large files by
// lib-storage.

"use strict";

const fs = require("node:fs");
const { PassThrough } = require("node:stream");
const { pipeline } = require("node:stream/promises");
const s3 = require("@aws-sdk/client-s3");
const { Upload } = require("@aws-sdk/lib-storage");
const { getSignedUrl } = require("@aws-sdk/s3-request-presigner");
const { serve, runAll } = require("./serving.cjs");

const MULTIPART_BYTES = 16 << 20;

function open(endpoint) {
  const settings = {
    endpoint: endpoint.url,
    region: endpoint.region,
    forcePathStyle: true,
    credentials: { accessKeyId: endpoint.access_key, secretAccessKey: endpoint.secret_key },
  };
  const client = new s3.S3Client(settings);

  return {
    async put(bucket, key, path, contentType, metadata) {
      const { size } = fs.statSync(path);
      const params = { Bucket: bucket, Key: key, Body: fs.createReadStream(path), Metadata: metadata };
      if (contentType) params.ContentType = contentType;
      if (size > MULTIPART_BYTES) await new Upload({ client, params }).done();
      else await client.send(new s3.PutObjectCommand({ ...params, ContentLength: size }));
    },

    async put_stream(bucket, key, path) {
      const Body = fs.createReadStream(path).pipe(new PassThrough());
      await new Upload({ client, params: { Bucket: bucket, Key: key, Body } }).done();
    },

    async get(bucket, key, path) {
      const answer = await client.send(new s3.GetObjectCommand({ Bucket: bucket, Key: key }));
      await pipeline(answer.Body, fs.createWriteStream(path));
    },

    async get_range(bucket, key, path, first, last) {
      const wanted = { Bucket: bucket, Key: key, Range: `bytes=${first}-${last}` };
      const answer = await client.send(new s3.GetObjectCommand(wanted));
      await pipeline(answer.Body, fs.createWriteStream(path));
    },

    async list_keys(bucket, prefix) {
      const keys = [];
      for await (const page of s3.paginateListObjectsV2({ client, pageSize: 7 }, { Bucket: bucket, Prefix: prefix }))
        keys.push(...(page.Contents ?? []).map((item) => item.Key));
      return keys;
    },

    async delete(bucket, key) {
      await client.send(new s3.DeleteObjectCommand({ Bucket: bucket, Key: key }));
    },

    async describe(bucket, key) {
      const answer = await client.send(new s3.HeadObjectCommand({ Bucket: bucket, Key: key }));
      return [answer.ContentType, answer.Metadata];
    },

    async copy(bucket, source, target) {
      const CopySource = `${bucket}/${source.split("/").map(encodeURIComponent).join("/")}`;
      await client.send(new s3.CopyObjectCommand({ Bucket: bucket, Key: target, CopySource }));
    },

    presign_get: (bucket, key) => getSignedUrl(client, new s3.GetObjectCommand({ Bucket: bucket, Key: key })),

    presign_put: (bucket, key) => getSignedUrl(client, new s3.PutObjectCommand({ Bucket: bucket, Key: key })),

    async put_many(bucket, files) {
      await runAll(
        (key, path) => client.send(new s3.PutObjectCommand({ Bucket: bucket, Key: key, Body: fs.readFileSync(path) })),
        files,
      );
    },

    async get_many(bucket, files) {
      await runAll((key, path) => this.get(bucket, key, path), files);
    },

    async delete_tree(bucket, prefix, keys) {
      const Delete = { Objects: keys.map((Key) => ({ Key })) };
      const answer = await client.send(new s3.DeleteObjectsCommand({ Bucket: bucket, Delete }));
      if (answer.Errors?.length) throw new Error(`not deleted: ${JSON.stringify(answer.Errors)}`);
    },
  };
}

serve(open);
