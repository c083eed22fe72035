'use strict';

/** Answers an HTTP request with its body. */
exports.main_handler = async (event) => ({
  statusCode: 200,
  headers: { 'content-type': 'application/json' },
  body: event.body,
});
