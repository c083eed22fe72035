'use strict';

/** Answers with the event. */
exports.main_handler = async (event) => event;
