CREATE TABLE _sqlx_migrations (
    version bigint NOT NULL,
    description text NOT NULL,
    installed_on timestamp with time zone DEFAULT now() NOT NULL,
    success boolean NOT NULL,
    checksum bytea NOT NULL,
    execution_time bigint NOT NULL
);

CREATE TABLE access_keys (
    id text NOT NULL,
    sealed text NOT NULL,
    created_at bigint NOT NULL
);

CREATE TABLE counters (
    name text NOT NULL,
    value bigint NOT NULL
);

CREATE TABLE functions (
    namespace text NOT NULL,
    name text NOT NULL,
    latest text NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL
);

CREATE TABLE journal (
    seq bigint NOT NULL,
    namespace text NOT NULL,
    function text NOT NULL,
    request_id text,
    "time" bigint NOT NULL,
    kind bigint NOT NULL,
    body text NOT NULL
);

CREATE TABLE nodes (
    id text NOT NULL,
    url text NOT NULL,
    memory_mb bigint NOT NULL,
    lease_until bigint NOT NULL
);

CREATE TABLE queue_events (
    request_id text NOT NULL,
    queue text NOT NULL,
    seq bigint NOT NULL,
    version text NOT NULL,
    revision text NOT NULL,
    origin text NOT NULL,
    accepted_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    state text NOT NULL,
    due_at bigint NOT NULL,
    held_until bigint NOT NULL,
    ended_at bigint,
    claims bigint NOT NULL,
    ran bigint NOT NULL,
    attempts text NOT NULL,
    begun text NOT NULL,
    result text,
    error text,
    payload bytea NOT NULL
);

CREATE TABLE queue_ticks (
    trigger_id text NOT NULL,
    at bigint NOT NULL
);

CREATE TABLE queues (
    name text NOT NULL,
    waiting bigint NOT NULL,
    accepted bigint NOT NULL
);

CREATE TABLE registry_changes (
    counter bigint NOT NULL,
    namespace text,
    function text
);

CREATE TABLE revisions (
    namespace text NOT NULL,
    function text NOT NULL,
    digest text NOT NULL,
    code text NOT NULL,
    config text NOT NULL,
    replaced_at bigint NOT NULL
);

CREATE TABLE routes (
    shape text NOT NULL,
    method text NOT NULL,
    namespace text NOT NULL,
    function text NOT NULL,
    name text NOT NULL
);

CREATE TABLE triggers (
    namespace text NOT NULL,
    function text NOT NULL,
    name text NOT NULL,
    spec text NOT NULL,
    enabled bigint NOT NULL
);

CREATE TABLE versions (
    namespace text NOT NULL,
    function text NOT NULL,
    number bigint NOT NULL,
    digest text NOT NULL,
    published_at bigint NOT NULL
);

INSERT INTO _sqlx_migrations VALUES (1, 'registry', '2026-11-26 22:22:09.878001+00', true, '\x65bc73b7015bb30e5c4cc3f81fd888bcab3475cb117cf85baa107e2f52bbfff17b25f5ac66edd87008f5ee326be95053', 60807296);
INSERT INTO _sqlx_migrations VALUES (2, 'queue', '2026-11-26 22:22:09.939481+00', true, '\x4a7502707b08683456c699bbe3d507915782a532ce0568621ace00331084cc3638750d55f3777e0045d2dab905227218', 29024336);
INSERT INTO _sqlx_migrations VALUES (3, 'journal', '2026-11-26 22:22:09.971767+00', true, '\x49e5603c7b008ebb349e759610ec91bcb453c3d64f1b0e39b80f8d8ee007fca57015dad49ec9963851cb811035884f03', 18522425);
INSERT INTO _sqlx_migrations VALUES (4, 'nodes', '2026-11-26 22:22:09.987977+00', true, '\x15ab94c24f436a89a8d8f2881644ce3323a641c7e20b2e5c15d73fab5193d9f0d857479a61c5e0764cf6488a4ae70557', 11935769);
INSERT INTO _sqlx_migrations VALUES (5, 'registry changes', '2026-11-26 22:22:10.00377+00', true, '\xe026f09b5475e7f55584aff5f548e1c38f95d8589bfbc1ef7c11869fadc4c02b87868253b323a37a84755878748a88e5', 7988836);

INSERT INTO access_keys VALUES ('AKIDgoldengoldengoldengoldengolden00', 'et+PNoak/YoLA4iMYHZYk7NJTmpln34ZvD9E6xnKM69HB4BqTDf59TZJLyNzcRmLUix5tqVaEAONgZZD', 1795731730048726);

INSERT INTO counters VALUES ('journal', 56);
INSERT INTO counters VALUES ('registry', 48);

INSERT INTO functions VALUES ('shop', 'hello-node', 'c034e0046941e06d1b7b8bde269859cd0b7818e4992cdd8faeddffe6392301c0', 1795731731264075, 1795731731264075);
INSERT INTO functions VALUES ('default', 'absent', 'af3716d6d3d6270c2ebaf2616de9710aebf65d9d379ed09da6a41bf93a684e94', 1795731730795608, 1795731732985521);
INSERT INTO functions VALUES ('default', 'bash-runtime', '576fc1b9fd5def6467c9cc8bff44cd2ce93dceaa2ac6bf034e329569387f442b', 1795731730803375, 1795731733056933);
INSERT INTO functions VALUES ('default', 'brief', '8f67274b3397fffb941fa31701364bd3e761495c1b40a486379a501853b1763e', 1795731730811367, 1795731733096972);
INSERT INTO functions VALUES ('default', 'broken', '7926c57562d9b1c09fb9486e58f4cdb5ed859c7311eac17e3b9b6b0530cd40ba', 1795731730816299, 1795731733120491);
INSERT INTO functions VALUES ('default', 'buries', '5b371046947ffa341fc5f4196e2a371521587b6b60227cd262e5c3d8b86396e0', 1795731730821352, 1795731733132850);
INSERT INTO functions VALUES ('default', 'fails', '23d486235712c5d3b00e312f584e7c1c0b54c9eed2d71eb0f06e5e86b05b05e4', 1795731730834152, 1795731733172892);
INSERT INTO functions VALUES ('default', 'hello', 'ac1ffdb881bf73c909c9b0f1673254f170fae4914d48eacc8ea6d2c539b14ee2', 1795731730844827, 1795731733280783);
INSERT INTO functions VALUES ('default', 'hello-go', '04153cca5953945eacc0c8d4638fb60dfd093f40e1ed24334261a4cd4224ada9', 1795731730852830, 1795731733347412);
INSERT INTO functions VALUES ('default', 'hello-node', '938ef2e16dff48376830a9adba1205819c543d2919544a788ee5ce976826c4de', 1795731730861772, 1795731733372455);
INSERT INTO functions VALUES ('default', 'hello-shell', 'a7b5f58bbdb3de60eed8c1c38d1c1b40830b2cf7a9f95e26eab696a094673d1d', 1795731730871026, 1795731733440499);
INSERT INTO functions VALUES ('default', 'impatient', 'b117dc68e65286eb56a6e2203d97e4012b1b07f911cc7ee7d474cdabe1e30af3', 1795731730876801, 1795731733495875);
INSERT INTO functions VALUES ('default', 'large', '04b73e574e8abda93fe270569749505a56855124a431ed0d789673232f59f1b9', 1795731730888569, 1795731733576866);
INSERT INTO functions VALUES ('default', 'later', '496753154f3a69e121f10f86d22e47be185a4a6883dc24728e4411c4fa081b7b', 1795731731000643, 1795731733616450);
INSERT INTO functions VALUES ('default', 'quick', '84fcfdbedd611d7a13c3e40e4934a37719138c99cf56a5dbd51137e312856d7a', 1795731731022686, 1795731733680494);
INSERT INTO functions VALUES ('default', 'single', 'e4ec86ce04a572f9a7bd83bf053ddbbcb0c77122f3805051d6b33d167d9e0b6a', 1795731731039985, 1795731733709051);
INSERT INTO functions VALUES ('default', 'slow', '00af8982f2b1d2697cb62bf42b110997ef9080a188fd31c18290a6116abfa678', 1795731731058630, 1795731733764694);
INSERT INTO functions VALUES ('default', 'ticker', 'adb528daeed6ac1b7c5342640c3fedf6e05acd4b02e529dfc227cae5d534cd46', 1795731731068295, 1795731733850757);
INSERT INTO functions VALUES ('default', 'worker', '396822b3f10065a416afdc5f9f6a6dcb0453390f52165a6d862338992627c206', 1795731731092353, 1795731733933090);

INSERT INTO journal VALUES (1, 'default', 'later', '01a219f3-b3e4-71ca-b5ea-2cf1943cbf12', 1795731731891486, 2, '{"request_id":"01a219f3-b3e4-71ca-b5ea-2cf1943cbf12","function":{"namespace":"default","name":"later"},"version":"1","trigger":null,"attempt":1,"started_at":"2026-11-26T22:22:11.856156075Z","duration":{"secs":0,"nanos":35330225},"status":430,"error":{"statusCode":430,"errorCode":1,"errorMessage":"RuntimeError: a version","errorType":"RuntimeError","stackTrace":"Traceback (most recent call last):\n  File \"/var/user/index.py\", line 21, in fail\n    raise RuntimeError(event.get(\"pins\"))\nRuntimeError: a version\n"},"cold":true,"init":{"secs":0,"nanos":394864511},"cold_start":{"total":{"secs":0,"nanos":394864511},"parts":{"code":{"secs":0,"nanos":64000},"runtime":{"secs":0,"nanos":254996087},"function":{"secs":0,"nanos":139804424}},"memory_mb":128,"memory_bytes":6598656,"from_stem":false},"memory_mb":128,"memory_bytes":7548928,"node":"golden-node","first":true}');
INSERT INTO journal VALUES (2, 'default', 'later', '01a219f3-b62a-70f0-8977-b8e4c6776cae', 1795731732520274, 2, '{"request_id":"01a219f3-b62a-70f0-8977-b8e4c6776cae","function":{"namespace":"default","name":"later"},"version":"$LATEST","trigger":null,"attempt":1,"started_at":"2026-11-26T22:22:12.420137115Z","duration":{"secs":0,"nanos":100137263},"status":430,"error":{"statusCode":430,"errorCode":1,"errorMessage":"RuntimeError: a revision that is replaced","errorType":"RuntimeError","stackTrace":"Traceback (most recent call last):\n  File \"/var/user/index.py\", line 21, in fail\n    raise RuntimeError(event.get(\"pins\"))\nRuntimeError: a revision that is replaced\n"},"cold":true,"init":{"secs":0,"nanos":382471733},"cold_start":{"total":{"secs":0,"nanos":382471733},"parts":{"code":{"secs":0,"nanos":91752},"runtime":{"secs":0,"nanos":231772643},"function":{"secs":0,"nanos":150607338}},"memory_mb":128,"memory_bytes":6602752,"from_stem":false},"memory_mb":128,"memory_bytes":7553024,"node":"golden-node","first":true}');
INSERT INTO journal VALUES (3, 'default', 'slow', '01a219f3-be68-723b-b628-4763d7362dd0', 1795731734476592, 1, '{"request_id":"01a219f3-be68-723b-b628-4763d7362dd0","function":{"namespace":"default","name":"slow"},"version":"$LATEST","time":"2026-11-26T22:22:14.476592847Z","lines":["line 0 {\"sleep\": 900}"],"first":true,"cold_start":{"total":{"secs":0,"nanos":293552213},"parts":{"code":{"secs":0,"nanos":3435605},"runtime":{"secs":0,"nanos":197271303},"function":{"secs":0,"nanos":92845305}},"memory_mb":128,"memory_bytes":6606848,"from_stem":false}}');
INSERT INTO journal VALUES (4, 'default', 'hello', '01a219f4-344c-7624-af85-a550c810d564', 1795731764848165, 1, '{"request_id":"01a219f4-344c-7624-af85-a550c810d564","function":{"namespace":"default","name":"hello"},"version":"$LATEST","time":"2026-11-26T22:22:44.848165494Z","lines":["line 0 {\"n\": 1}"],"first":true,"cold_start":{"total":{"secs":0,"nanos":535018129},"parts":{"code":{"secs":0,"nanos":6988820},"runtime":{"secs":0,"nanos":316033695},"function":{"secs":0,"nanos":211995614}},"memory_mb":256,"memory_bytes":6606848,"from_stem":false}}');
INSERT INTO journal VALUES (5, 'default', 'hello', '01a219f4-344c-7624-af85-a550c810d564', 1795731764851920, 2, '{"request_id":"01a219f4-344c-7624-af85-a550c810d564","function":{"namespace":"default","name":"hello"},"version":"$LATEST","trigger":null,"attempt":1,"started_at":"2026-11-26T22:22:44.83623255Z","duration":{"secs":0,"nanos":15687648},"status":200,"error":null,"cold":true,"init":{"secs":0,"nanos":535018129},"memory_mb":256,"memory_bytes":6606848,"node":"golden-node","first":false}');
INSERT INTO journal VALUES (6, 'default', 'hello', '01a219f4-368b-7164-a930-55f20761149c', 1795731764876258, 1, '{"request_id":"01a219f4-368b-7164-a930-55f20761149c","function":{"namespace":"default","name":"hello"},"version":"$LATEST","time":"2026-11-26T22:22:44.876258553Z","lines":["line 0 {\"n\": 2}"],"first":true}');
INSERT INTO journal VALUES (7, 'default', 'hello', '01a219f4-368b-7164-a930-55f20761149c', 1795731764876255, 2, '{"request_id":"01a219f4-368b-7164-a930-55f20761149c","function":{"namespace":"default","name":"hello"},"version":"$LATEST","trigger":null,"attempt":1,"started_at":"2026-11-26T22:22:44.875773934Z","duration":{"secs":0,"nanos":481864},"status":200,"error":null,"cold":false,"init":null,"memory_mb":256,"memory_bytes":6606848,"node":"golden-node","first":false}');
INSERT INTO journal VALUES (8, 'default', 'slow', '01a219f3-be68-723b-b628-4763d7362dd0', 1795731764796357, 1, '{"request_id":"01a219f3-be68-723b-b628-4763d7362dd0","function":{"namespace":"default","name":"slow"},"version":"$LATEST","time":"2026-11-26T22:22:44.796357931Z","lines":["line 0 {\"sleep\": 900}"],"first":true,"cold_start":{"total":{"secs":0,"nanos":616713468},"parts":{"code":{"secs":0,"nanos":365666},"runtime":{"secs":0,"nanos":376823959},"function":{"secs":0,"nanos":239523843}},"memory_mb":128,"memory_bytes":6602752,"from_stem":false}}');
INSERT INTO journal VALUES (9, 'default', 'hello-node', '01a219f4-3690-718a-95ca-262ccdc1abfc', 1795731765311157, 1, '{"request_id":"01a219f4-3690-718a-95ca-262ccdc1abfc","function":{"namespace":"default","name":"hello-node"},"version":"$LATEST","time":"2026-11-26T22:22:45.311157112Z","lines":["node 1"],"first":true,"cold_start":{"total":{"secs":0,"nanos":413685585},"parts":{"code":{"secs":0,"nanos":159799},"runtime":{"secs":0,"nanos":383037505},"function":{"secs":0,"nanos":30488281}},"memory_mb":128,"memory_bytes":7204864,"from_stem":false}}');
INSERT INTO journal VALUES (10, 'default', 'hello-node', '01a219f4-3690-718a-95ca-262ccdc1abfc', 1795731765324455, 2, '{"request_id":"01a219f4-3690-718a-95ca-262ccdc1abfc","function":{"namespace":"default","name":"hello-node"},"version":"$LATEST","trigger":null,"attempt":1,"started_at":"2026-11-26T22:22:45.29530232Z","duration":{"secs":0,"nanos":29153558},"status":200,"error":null,"cold":true,"init":{"secs":0,"nanos":413685585},"memory_mb":128,"memory_bytes":7204864,"node":"golden-node","first":false}');
INSERT INTO journal VALUES (11, 'default', 'hello-node', '01a219f4-384e-773e-a4d1-581f866e262e', 1795731765328821, 1, '{"request_id":"01a219f4-384e-773e-a4d1-581f866e262e","function":{"namespace":"default","name":"hello-node"},"version":"$LATEST","time":"2026-11-26T22:22:45.328821738Z","lines":["node 2"],"first":true}');
INSERT INTO journal VALUES (12, 'default', 'hello-node', '01a219f4-384e-773e-a4d1-581f866e262e', 1795731765328815, 2, '{"request_id":"01a219f4-384e-773e-a4d1-581f866e262e","function":{"namespace":"default","name":"hello-node"},"version":"$LATEST","trigger":null,"attempt":1,"started_at":"2026-11-26T22:22:45.326310708Z","duration":{"secs":0,"nanos":2505159},"status":200,"error":null,"cold":false,"init":null,"memory_mb":128,"memory_bytes":7204864,"node":"golden-node","first":false}');
INSERT INTO journal VALUES (13, 'default', 'hello-shell', '01a219f4-3861-7354-b931-a3aca10d48bd', 1795731765442954, 1, '{"request_id":"01a219f4-3861-7354-b931-a3aca10d48bd","function":{"namespace":"default","name":"hello-shell"},"version":"$LATEST","time":"2026-11-26T22:22:45.442954615Z","lines":["shell runs"],"first":true,"cold_start":{"total":{"secs":0,"nanos":82674406},"parts":{"code":{"secs":0,"nanos":109616},"runtime":{"secs":0,"nanos":78466983},"function":{"secs":0,"nanos":4097807}},"memory_mb":128,"memory_bytes":1044480,"from_stem":false}}');
INSERT INTO journal VALUES (14, 'default', 'hello-shell', '01a219f4-3861-7354-b931-a3aca10d48bd', 1795731765483351, 2, '{"request_id":"01a219f4-3861-7354-b931-a3aca10d48bd","function":{"namespace":"default","name":"hello-shell"},"version":"$LATEST","trigger":null,"attempt":1,"started_at":"2026-11-26T22:22:45.432002851Z","duration":{"secs":0,"nanos":51348693},"status":200,"error":null,"cold":true,"init":{"secs":0,"nanos":82674406},"memory_mb":128,"memory_bytes":1081344,"node":"golden-node","first":false}');
INSERT INTO journal VALUES (25, 'default', 'hello', NULL, 1795731766669022, 1, '{"request_id":null,"function":{"namespace":"default","name":"hello"},"version":"$LATEST","time":"2026-11-26T22:22:46.669022126Z","lines":["from a thread"],"first":false}');
INSERT INTO journal VALUES (15, 'default', 'hello-shell', '01a219f4-38f7-7121-8b9a-2a8156743fac', 1795731765501507, 1, '{"request_id":"01a219f4-38f7-7121-8b9a-2a8156743fac","function":{"namespace":"default","name":"hello-shell"},"version":"$LATEST","time":"2026-11-26T22:22:45.501507031Z","lines":["shell runs"],"first":true}');
INSERT INTO journal VALUES (16, 'default', 'hello-shell', '01a219f4-38f7-7121-8b9a-2a8156743fac', 1795731765501491, 2, '{"request_id":"01a219f4-38f7-7121-8b9a-2a8156743fac","function":{"namespace":"default","name":"hello-shell"},"version":"$LATEST","trigger":null,"attempt":1,"started_at":"2026-11-26T22:22:45.495330636Z","duration":{"secs":0,"nanos":6160676},"status":200,"error":null,"cold":false,"init":null,"memory_mb":128,"memory_bytes":1081344,"node":"golden-node","first":false}');
INSERT INTO journal VALUES (17, 'default', 'bash-runtime', '01a219f4-390a-72f7-843d-875bfe5a1d58', 1795731765883982, 1, '{"request_id":"01a219f4-390a-72f7-843d-875bfe5a1d58","function":{"namespace":"default","name":"bash-runtime"},"version":"$LATEST","time":"2026-11-26T22:22:45.883982252Z","lines":["got 8 bytes"],"first":true,"cold_start":{"total":{"secs":0,"nanos":214660122},"parts":{"code":{"secs":0,"nanos":428234},"runtime":{"secs":0,"nanos":50074332},"function":{"secs":0,"nanos":164157556}},"memory_mb":128,"memory_bytes":2772992,"from_stem":false}}');
INSERT INTO journal VALUES (18, 'default', 'bash-runtime', '01a219f4-390a-72f7-843d-875bfe5a1d58', 1795731765942756, 2, '{"request_id":"01a219f4-390a-72f7-843d-875bfe5a1d58","function":{"namespace":"default","name":"bash-runtime"},"version":"$LATEST","trigger":null,"attempt":1,"started_at":"2026-11-26T22:22:45.730957519Z","duration":{"secs":0,"nanos":211799106},"status":200,"error":null,"cold":true,"init":{"secs":0,"nanos":214660122},"memory_mb":128,"memory_bytes":1380352,"node":"golden-node","first":false}');
INSERT INTO journal VALUES (31, 'default', 'impatient', '01a219f4-4490-7265-a7f0-b1070fec9d28', 1795731768686002, 2, '{"request_id":"01a219f4-4490-7265-a7f0-b1070fec9d28","function":{"namespace":"default","name":"impatient"},"version":"$LATEST","trigger":null,"attempt":1,"started_at":"2026-11-26T22:22:48.668054971Z","duration":{"secs":0,"nanos":17947527},"status":200,"error":null,"cold":true,"init":{"secs":0,"nanos":190688134},"cold_start":{"total":{"secs":0,"nanos":190688134},"parts":{"code":{"secs":0,"nanos":3926105},"runtime":{"secs":0,"nanos":122234103},"function":{"secs":0,"nanos":64527926}},"memory_mb":128,"memory_bytes":6602752,"from_stem":false},"memory_mb":128,"memory_bytes":6602752,"node":"golden-node","first":true}');
INSERT INTO journal VALUES (47, 'default', 'quick', '01a219f4-69d3-71e4-9c7c-46e8a7c64a42', 1795731779416047, 2, '{"request_id":"01a219f4-69d3-71e4-9c7c-46e8a7c64a42","function":{"namespace":"default","name":"quick"},"version":"$LATEST","trigger":null,"attempt":1,"started_at":"2026-11-26T22:22:58.404983673Z","duration":{"secs":1,"nanos":11064065},"status":433,"error":{"statusCode":433,"errorCode":-1,"errorMessage":"Invoking task timed out after 1 seconds"},"cold":true,"init":{"secs":0,"nanos":393468211},"memory_mb":128,"memory_bytes":6606848,"node":"golden-node","first":false}');
INSERT INTO journal VALUES (55, 'default', 'ticker', '01a219f4-8cf8-753b-af6d-2eb68124504d', 1795731787032059, 1, '{"request_id":"01a219f4-8cf8-753b-af6d-2eb68124504d","function":{"namespace":"default","name":"ticker"},"version":"$LATEST","time":"2026-11-26T22:23:07.032059456Z","lines":["line 0 {\"Message\": \"tick\", \"Time\": \"2026-11-26T22:23:07Z\", \"TriggerName\": \"each-second\", \"Type\": \"Timer\"}"],"first":true}');
INSERT INTO journal VALUES (56, 'default', 'ticker', '01a219f4-8cf8-753b-af6d-2eb68124504d', 1795731787032045, 2, '{"request_id":"01a219f4-8cf8-753b-af6d-2eb68124504d","function":{"namespace":"default","name":"ticker"},"version":"$LATEST","trigger":"each-second","attempt":1,"started_at":"2026-11-26T22:23:07.027595663Z","duration":{"secs":0,"nanos":4449557},"status":200,"error":null,"cold":false,"init":null,"memory_mb":128,"memory_bytes":6602752,"node":"golden-node","first":false}');
INSERT INTO journal VALUES (19, 'default', 'bash-runtime', '01a219f4-3ac4-71d0-847f-4e23c93dabd8', 1795731766039859, 1, '{"request_id":"01a219f4-3ac4-71d0-847f-4e23c93dabd8","function":{"namespace":"default","name":"bash-runtime"},"version":"$LATEST","time":"2026-11-26T22:22:46.039859866Z","lines":["got 8 bytes"],"first":true}');
INSERT INTO journal VALUES (20, 'default', 'bash-runtime', '01a219f4-3ac4-71d0-847f-4e23c93dabd8', 1795731766102382, 2, '{"request_id":"01a219f4-3ac4-71d0-847f-4e23c93dabd8","function":{"namespace":"default","name":"bash-runtime"},"version":"$LATEST","trigger":null,"attempt":1,"started_at":"2026-11-26T22:22:45.956242191Z","duration":{"secs":0,"nanos":146140629},"status":200,"error":null,"cold":false,"init":null,"memory_mb":128,"memory_bytes":1380352,"node":"golden-node","first":false}');
INSERT INTO journal VALUES (23, 'default', 'hello', '01a219f4-3b88-7690-b8ef-1582964a94c8', 1795731766215932, 1, '{"request_id":"01a219f4-3b88-7690-b8ef-1582964a94c8","function":{"namespace":"default","name":"hello"},"version":"$LATEST","time":"2026-11-26T22:22:46.215932183Z","lines":["line 0 {\"raise\": \"no\"}"],"first":true}');
INSERT INTO journal VALUES (24, 'default', 'hello', '01a219f4-3b88-7690-b8ef-1582964a94c8', 1795731766315193, 2, '{"request_id":"01a219f4-3b88-7690-b8ef-1582964a94c8","function":{"namespace":"default","name":"hello"},"version":"$LATEST","trigger":null,"attempt":1,"started_at":"2026-11-26T22:22:46.152860379Z","duration":{"secs":0,"nanos":162332783},"status":430,"error":{"statusCode":430,"errorCode":1,"errorMessage":"ValueError: no","errorType":"ValueError","stackTrace":"Traceback (most recent call last):\n  File \"/var/user/index.py\", line 16, in main_handler\n    raise ValueError(event[\"raise\"])\nValueError: no\n"},"cold":false,"init":null,"memory_mb":256,"memory_bytes":7581696,"node":"golden-node","first":false}');
INSERT INTO journal VALUES (27, 'default', 'quick', '01a219f4-3c41-70a1-8c65-1859ef5b0cda', 1795731767634191, 2, '{"request_id":"01a219f4-3c41-70a1-8c65-1859ef5b0cda","function":{"namespace":"default","name":"quick"},"version":"$LATEST","trigger":null,"attempt":1,"started_at":"2026-11-26T22:22:46.62167005Z","duration":{"secs":1,"nanos":12521768},"status":433,"error":{"statusCode":433,"errorCode":-1,"errorMessage":"Invoking task timed out after 1 seconds"},"cold":true,"init":{"secs":0,"nanos":283429554},"memory_mb":128,"memory_bytes":6602752,"node":"golden-node","first":false}');
INSERT INTO journal VALUES (30, 'default', 'absent', '01a219f4-4340-75e9-a981-67283ec24788', 1795731768451808, 2, '{"request_id":"01a219f4-4340-75e9-a981-67283ec24788","function":{"namespace":"default","name":"absent"},"version":"$LATEST","trigger":null,"attempt":1,"started_at":"2026-11-26T22:22:48.451808633Z","duration":{"secs":0,"nanos":0},"status":437,"error":{"statusCode":437,"errorCode":1,"errorMessage":"handler `index.absent` not found: /var/user/index.py has no function `absent`"},"cold":true,"init":{"secs":0,"nanos":312834063},"cold_start":{"total":{"secs":0,"nanos":312834063},"parts":null,"memory_mb":128,"memory_bytes":0,"from_stem":false},"memory_mb":128,"memory_bytes":0,"node":"golden-node","first":true}');
INSERT INTO journal VALUES (32, 'default', 'slow', '01a219f4-4581-74d8-9ed9-37ffd70d9ada', 1795731776706440, 2, '{"request_id":"01a219f4-4581-74d8-9ed9-37ffd70d9ada","function":{"namespace":"default","name":"slow"},"version":"$LATEST","trigger":null,"attempt":1,"started_at":"2026-11-26T22:22:56.706440845Z","duration":{"secs":0,"nanos":0},"status":432,"error":{"statusCode":432,"errorCode":-1,"errorMessage":"the function already runs 1 invocations at once, its limit"},"cold":false,"init":null,"memory_mb":128,"memory_bytes":0,"node":null,"first":true}');
INSERT INTO journal VALUES (33, 'default', 'large', '01a219f4-64c4-770b-a874-5160c86a1c5b', 1795731776708608, 2, '{"request_id":"01a219f4-64c4-770b-a874-5160c86a1c5b","function":{"namespace":"default","name":"large"},"version":"$LATEST","trigger":null,"attempt":1,"started_at":"2026-11-26T22:22:56.708608511Z","duration":{"secs":0,"nanos":0},"status":449,"error":{"statusCode":449,"errorCode":-1,"errorMessage":"no room for another sandbox: the function needs 4096 MB and the node has 1536 MB for all"},"cold":false,"init":null,"memory_mb":4096,"memory_bytes":0,"node":null,"first":true}');
INSERT INTO journal VALUES (34, 'default', 'hello', '01a219f4-64c7-768f-add7-f507b41fbca6', 1795731776720210, 1, '{"request_id":"01a219f4-64c7-768f-add7-f507b41fbca6","function":{"namespace":"default","name":"hello"},"version":"$LATEST","time":"2026-11-26T22:22:56.720210755Z","lines":["line 0 {\"requestContext\": {\"path\": \"/greet/{name}\", \"httpMethod\": \"POST\", \"requestId\": \"01a219f4-64c7-768f-add7-f507b41fbca6\", \"identity\": {}, \"sourceIp\": \"127.0.0.1\", \"stage\": \"release\"}, \"headers\": {\"host\": \"127.0.0.1:54453\", \"accept-encoding\": \"identity\", \"content-length\": \"2\", \"authorization\": \"Basic QUtJRGdvbGRlbmdvbGRlbmdvbGRlbmdvbGRlbmdvbGRlbjAwOmdvbGRlbi1zZWNyZXQtMDAwMDAwMDAwMDAwMDAwMDAw\", \"content-type\": \"application/json\"}, \"pathParameters\": {\"name\": \"you\"}, \"queryStringParameters\": {}, \"headerParameters\": {}, \"stageVariables\": {\"stage\": \"release\"}, \"path\": \"/greet/you\", \"queryString\": {}, \"httpMethod\": \"POST\", \"body\": \"{}\", \"isBase64Encoded\": false}"],"first":true}');
INSERT INTO journal VALUES (35, 'default', 'hello', '01a219f4-64c7-768f-add7-f507b41fbca6', 1795731776720194, 2, '{"request_id":"01a219f4-64c7-768f-add7-f507b41fbca6","function":{"namespace":"default","name":"hello"},"version":"$LATEST","trigger":"keyed","attempt":1,"started_at":"2026-11-26T22:22:56.711208338Z","duration":{"secs":0,"nanos":8986407},"status":200,"error":null,"cold":false,"init":null,"memory_mb":256,"memory_bytes":7577600,"node":"golden-node","first":false}');
INSERT INTO journal VALUES (42, 'default', 'fails', '01a219f4-6767-72d8-ad02-1ec77523237b', 1795731777896021, 1, '{"request_id":"01a219f4-6767-72d8-ad02-1ec77523237b","function":{"namespace":"default","name":"fails"},"version":"$LATEST","time":"2026-11-26T22:22:57.896021401Z","lines":["line 0 {\"raise\": \"böse\"}"],"first":true,"cold_start":{"total":{"secs":0,"nanos":422950365},"parts":{"code":{"secs":0,"nanos":220083},"runtime":{"secs":0,"nanos":288037638},"function":{"secs":0,"nanos":134692644}},"memory_mb":128,"memory_bytes":6598656,"from_stem":false}}');
INSERT INTO journal VALUES (43, 'default', 'fails', '01a219f4-6767-72d8-ad02-1ec77523237b', 1795731777944716, 2, '{"request_id":"01a219f4-6767-72d8-ad02-1ec77523237b","function":{"namespace":"default","name":"fails"},"version":"$LATEST","trigger":null,"attempt":1,"started_at":"2026-11-26T22:22:57.888500693Z","duration":{"secs":0,"nanos":56216173},"status":430,"error":{"statusCode":430,"errorCode":1,"errorMessage":"ValueError: böse","errorType":"ValueError","stackTrace":"Traceback (most recent call last):\n  File \"/var/user/index.py\", line 16, in main_handler\n    raise ValueError(event[\"raise\"])\nValueError: böse\n"},"cold":true,"init":{"secs":0,"nanos":422950365},"memory_mb":128,"memory_bytes":7548928,"node":"golden-node","first":false}');
INSERT INTO journal VALUES (44, 'default', 'fails', '01a219f4-6767-72d8-ad02-1ec77523237b', 1795731777961635, 1, '{"request_id":"01a219f4-6767-72d8-ad02-1ec77523237b","function":{"namespace":"default","name":"fails"},"version":"$LATEST","time":"2026-11-26T22:22:57.961635314Z","lines":["line 0 {\"raise\": \"böse\"}"],"first":true}');
INSERT INTO journal VALUES (21, 'default', 'hello', '01a219f4-3b60-7684-9a73-ccad1fe4630d', 1795731766132029, 1, '{"request_id":"01a219f4-3b60-7684-9a73-ccad1fe4630d","function":{"namespace":"default","name":"hello"},"version":"$LATEST","time":"2026-11-26T22:22:46.132029573Z","lines":["line 0 {\"print\": 3, \"late\": true}","line 1 {\"print\": 3, \"late\": true}","line 2 {\"print\": 3, \"late\": true}"],"first":true}');
INSERT INTO journal VALUES (22, 'default', 'hello', '01a219f4-3b60-7684-9a73-ccad1fe4630d', 1795731766132017, 2, '{"request_id":"01a219f4-3b60-7684-9a73-ccad1fe4630d","function":{"namespace":"default","name":"hello"},"version":"$LATEST","trigger":null,"attempt":1,"started_at":"2026-11-26T22:22:46.112288271Z","duration":{"secs":0,"nanos":19729299},"status":200,"error":null,"cold":false,"init":null,"memory_mb":256,"memory_bytes":6610944,"node":"golden-node","first":false}');
INSERT INTO journal VALUES (36, 'default', 'hello', '01a219f4-64d2-7199-bdb3-dde9bb4a4ffa', 1795731776732150, 1, '{"request_id":"01a219f4-64d2-7199-bdb3-dde9bb4a4ffa","function":{"namespace":"default","name":"hello"},"version":"$LATEST","time":"2026-11-26T22:22:56.732150473Z","lines":["line 0 {\"requestContext\": {\"path\": \"/open/{first}/{second}\", \"httpMethod\": \"POST\", \"requestId\": \"01a219f4-64d2-7199-bdb3-dde9bb4a4ffa\", \"identity\": {}, \"sourceIp\": \"127.0.0.1\", \"stage\": \"release\"}, \"headers\": {\"host\": \"127.0.0.1:54453\", \"accept-encoding\": \"identity\", \"content-length\": \"2\", \"authorization\": \"Basic QUtJRGdvbGRlbmdvbGRlbmdvbGRlbmdvbGRlbmdvbGRlbjAwOmdvbGRlbi1zZWNyZXQtMDAwMDAwMDAwMDAwMDAwMDAw\", \"content-type\": \"application/json\"}, \"pathParameters\": {\"first\": \"a\", \"second\": \"b\"}, \"queryStringParameters\": {}, \"headerParameters\": {}, \"stageVariables\": {\"stage\": \"release\"}, \"path\": \"/open/a/b\", \"queryString\": {}, \"httpMethod\": \"POST\", \"body\": \"{}\", \"isBase64Encoded\": false}"],"first":true}');
INSERT INTO journal VALUES (37, 'default', 'hello', '01a219f4-64d2-7199-bdb3-dde9bb4a4ffa', 1795731776739933, 2, '{"request_id":"01a219f4-64d2-7199-bdb3-dde9bb4a4ffa","function":{"namespace":"default","name":"hello"},"version":"$LATEST","trigger":"open","attempt":1,"started_at":"2026-11-26T22:22:56.722475994Z","duration":{"secs":0,"nanos":17457958},"status":200,"error":null,"cold":false,"init":null,"memory_mb":256,"memory_bytes":7577600,"node":"golden-node","first":false}');
INSERT INTO journal VALUES (38, 'default', 'hello', '01a219f4-64e5-72b0-9638-61f81b26ff27', 1795731776752918, 1, '{"request_id":"01a219f4-64e5-72b0-9638-61f81b26ff27","function":{"namespace":"default","name":"hello"},"version":"$LATEST","time":"2026-11-26T22:22:56.752918611Z","lines":["line 0 {\"name\": \"函数 😀\", \"nothing\": null}"],"first":true}');
INSERT INTO journal VALUES (39, 'default', 'hello', '01a219f4-64e5-72b0-9638-61f81b26ff27', 1795731776752913, 2, '{"request_id":"01a219f4-64e5-72b0-9638-61f81b26ff27","function":{"namespace":"default","name":"hello"},"version":"$LATEST","trigger":null,"attempt":1,"started_at":"2026-11-26T22:22:56.752136684Z","duration":{"secs":0,"nanos":776857},"status":200,"error":null,"cold":false,"init":null,"memory_mb":256,"memory_bytes":7577600,"node":"golden-node","first":false}');
INSERT INTO journal VALUES (48, 'default', 'impatient', '01a219f4-6f72-743c-9c42-b5205bb75c72', 1795731779489239, 1, '{"request_id":"01a219f4-6f72-743c-9c42-b5205bb75c72","function":{"namespace":"default","name":"impatient"},"version":"$LATEST","time":"2026-11-26T22:22:59.489239094Z","lines":["line 0 {\"raise\": \"too late\"}"],"first":true}');
INSERT INTO journal VALUES (49, 'default', 'impatient', '01a219f4-6f72-743c-9c42-b5205bb75c72', 1795731779538869, 2, '{"request_id":"01a219f4-6f72-743c-9c42-b5205bb75c72","function":{"namespace":"default","name":"impatient"},"version":"$LATEST","trigger":null,"attempt":1,"started_at":"2026-11-26T22:22:59.478571733Z","duration":{"secs":0,"nanos":60297429},"status":430,"error":{"statusCode":430,"errorCode":1,"errorMessage":"ValueError: too late","errorType":"ValueError","stackTrace":"Traceback (most recent call last):\n  File \"/var/user/index.py\", line 16, in main_handler\n    raise ValueError(event[\"raise\"])\nValueError: too late\n"},"cold":false,"init":null,"memory_mb":128,"memory_bytes":7553024,"node":"golden-node","first":false}');
INSERT INTO journal VALUES (26, 'default', 'quick', '01a219f4-3c41-70a1-8c65-1859ef5b0cda', 1795731766627982, 1, '{"request_id":"01a219f4-3c41-70a1-8c65-1859ef5b0cda","function":{"namespace":"default","name":"quick"},"version":"$LATEST","time":"2026-11-26T22:22:46.627982371Z","lines":["line 0 {\"sleep\": 5}"],"first":true,"cold_start":{"total":{"secs":0,"nanos":283429554},"parts":{"code":{"secs":0,"nanos":179977},"runtime":{"secs":0,"nanos":191255068},"function":{"secs":0,"nanos":91994509}},"memory_mb":128,"memory_bytes":6602752,"from_stem":false}}');
INSERT INTO journal VALUES (28, 'default', 'broken', '01a219f4-4158-700f-9524-d524755abae4', 1795731767858304, 1, '{"request_id":"01a219f4-4158-700f-9524-d524755abae4","function":{"namespace":"default","name":"broken"},"version":"$LATEST","time":"2026-11-26T22:22:47.858304473Z","lines":["before it breaks"],"first":true,"cold_start":{"total":{"secs":0,"nanos":468857180},"parts":null,"memory_mb":128,"memory_bytes":0,"from_stem":false}}');
INSERT INTO journal VALUES (29, 'default', 'broken', '01a219f4-4158-700f-9524-d524755abae4', 1795731768118322, 2, '{"request_id":"01a219f4-4158-700f-9524-d524755abae4","function":{"namespace":"default","name":"broken"},"version":"$LATEST","trigger":null,"attempt":1,"started_at":"2026-11-26T22:22:48.11832238Z","duration":{"secs":0,"nanos":0},"status":443,"error":{"statusCode":443,"errorCode":1,"errorMessage":"ImportError: no such module","errorType":"ImportError","stackTrace":"Traceback (most recent call last):\n  File \"/var/user/broken.py\", line 2, in <module>\n    raise ImportError(\"no such module\")\nImportError: no such module\n"},"cold":true,"init":{"secs":0,"nanos":468857180},"memory_mb":128,"memory_bytes":0,"node":"golden-node","first":false}');
INSERT INTO journal VALUES (40, 'default', 'hello', '01a219f4-6575-752f-b312-6ec005ba3eb5', 1795731777276576, 1, '{"request_id":"01a219f4-6575-752f-b312-6ec005ba3eb5","function":{"namespace":"default","name":"hello"},"version":"1","time":"2026-11-26T22:22:57.27657687Z","lines":["line 0 {}"],"first":true,"cold_start":{"total":{"secs":0,"nanos":325496836},"parts":{"code":{"secs":0,"nanos":3575527},"runtime":{"secs":0,"nanos":183680368},"function":{"secs":0,"nanos":138240941}},"memory_mb":256,"memory_bytes":6602752,"from_stem":false}}');
INSERT INTO journal VALUES (41, 'default', 'hello', '01a219f4-6575-752f-b312-6ec005ba3eb5', 1795731777276799, 2, '{"request_id":"01a219f4-6575-752f-b312-6ec005ba3eb5","function":{"namespace":"default","name":"hello"},"version":"1","trigger":null,"attempt":1,"started_at":"2026-11-26T22:22:57.270113506Z","duration":{"secs":0,"nanos":6686252},"status":200,"error":null,"cold":true,"init":{"secs":0,"nanos":325496836},"memory_mb":256,"memory_bytes":6602752,"node":"golden-node","first":false}');
INSERT INTO journal VALUES (46, 'default', 'quick', '01a219f4-69d3-71e4-9c7c-46e8a7c64a42', 1795731778411315, 1, '{"request_id":"01a219f4-69d3-71e4-9c7c-46e8a7c64a42","function":{"namespace":"default","name":"quick"},"version":"$LATEST","time":"2026-11-26T22:22:58.411315831Z","lines":["line 0 {\"sleep\": 5}"],"first":true,"cold_start":{"total":{"secs":0,"nanos":393468211},"parts":{"code":{"secs":0,"nanos":4872380},"runtime":{"secs":0,"nanos":263938241},"function":{"secs":0,"nanos":124657590}},"memory_mb":128,"memory_bytes":6606848,"from_stem":false}}');
INSERT INTO journal VALUES (50, 'default', 'single', '01a219f4-74ea-71f7-9d4c-78fd13e531a3', 1795731781176286, 1, '{"request_id":"01a219f4-74ea-71f7-9d4c-78fd13e531a3","function":{"namespace":"default","name":"single"},"version":"$LATEST","time":"2026-11-26T22:23:01.176286498Z","lines":["line 0 {\"sleep\": 4}"],"first":true,"cold_start":{"total":{"secs":0,"nanos":281580766},"parts":{"code":{"secs":0,"nanos":3021227},"runtime":{"secs":0,"nanos":170411578},"function":{"secs":0,"nanos":108147961}},"memory_mb":128,"memory_bytes":6602752,"from_stem":false}}');
INSERT INTO journal VALUES (51, 'default', 'single', '01a219f4-74ea-71f7-9d4c-78fd13e531a3', 1795731785176501, 2, '{"request_id":"01a219f4-74ea-71f7-9d4c-78fd13e531a3","function":{"namespace":"default","name":"single"},"version":"$LATEST","trigger":null,"attempt":1,"started_at":"2026-11-26T22:23:01.163096846Z","duration":{"secs":4,"nanos":13404163},"status":200,"error":null,"cold":true,"init":{"secs":0,"nanos":281580766},"memory_mb":128,"memory_bytes":6602752,"node":"golden-node","first":false}');
INSERT INTO journal VALUES (52, 'default', 'later', '01a219f4-865f-7600-9dd8-ba04ba7ee6e7', 1795731785701488, 2, '{"request_id":"01a219f4-865f-7600-9dd8-ba04ba7ee6e7","function":{"namespace":"default","name":"later"},"version":"$LATEST","trigger":null,"attempt":1,"started_at":"2026-11-26T22:23:05.639968519Z","duration":{"secs":0,"nanos":61520023},"status":430,"error":{"statusCode":430,"errorCode":1,"errorMessage":"RuntimeError: $LATEST","errorType":"RuntimeError","stackTrace":"Traceback (most recent call last):\n  File \"/var/user/index.py\", line 21, in fail\n    raise RuntimeError(event.get(\"pins\"))\nRuntimeError: $LATEST\n"},"cold":true,"init":{"secs":0,"nanos":297239900},"cold_start":{"total":{"secs":0,"nanos":297239900},"parts":{"code":{"secs":0,"nanos":521598},"runtime":{"secs":0,"nanos":182000558},"function":{"secs":0,"nanos":114717744}},"memory_mb":128,"memory_bytes":6602752,"from_stem":false},"memory_mb":128,"memory_bytes":7553024,"node":"golden-node","first":true}');
INSERT INTO journal VALUES (53, 'default', 'ticker', '01a219f4-8910-7455-a29f-1451a87f66c3', 1795731786343968, 1, '{"request_id":"01a219f4-8910-7455-a29f-1451a87f66c3","function":{"namespace":"default","name":"ticker"},"version":"$LATEST","time":"2026-11-26T22:23:06.343968264Z","lines":["line 0 {\"Message\": \"tick\", \"Time\": \"2026-11-26T22:23:06Z\", \"TriggerName\": \"each-second\", \"Type\": \"Timer\"}"],"first":true,"cold_start":{"total":{"secs":0,"nanos":203653676},"parts":{"code":{"secs":0,"nanos":7864854},"runtime":{"secs":0,"nanos":118834476},"function":{"secs":0,"nanos":76954346}},"memory_mb":128,"memory_bytes":6602752,"from_stem":false}}');
INSERT INTO journal VALUES (45, 'default', 'fails', '01a219f4-6767-72d8-ad02-1ec77523237b', 1795731777961627, 2, '{"request_id":"01a219f4-6767-72d8-ad02-1ec77523237b","function":{"namespace":"default","name":"fails"},"version":"$LATEST","trigger":null,"attempt":2,"started_at":"2026-11-26T22:22:57.95795518Z","duration":{"secs":0,"nanos":3672579},"status":430,"error":{"statusCode":430,"errorCode":1,"errorMessage":"ValueError: böse","errorType":"ValueError","stackTrace":"Traceback (most recent call last):\n  File \"/var/user/index.py\", line 16, in main_handler\n    raise ValueError(event[\"raise\"])\nValueError: böse\n"},"cold":false,"init":null,"memory_mb":128,"memory_bytes":7548928,"node":"golden-node","first":false}');
INSERT INTO journal VALUES (54, 'default', 'ticker', '01a219f4-8910-7455-a29f-1451a87f66c3', 1795731786343949, 2, '{"request_id":"01a219f4-8910-7455-a29f-1451a87f66c3","function":{"namespace":"default","name":"ticker"},"version":"$LATEST","trigger":"each-second","attempt":1,"started_at":"2026-11-26T22:23:06.340714139Z","duration":{"secs":0,"nanos":3234978},"status":200,"error":null,"cold":true,"init":{"secs":0,"nanos":203653676},"memory_mb":128,"memory_bytes":6602752,"node":"golden-node","first":false}');

INSERT INTO nodes VALUES ('golden-node', 'http://golden:9100', 1536, 1795731794974430);

INSERT INTO queue_events VALUES ('01a219f4-8819-72c3-92b4-f01c05571af6', 'default/large/hourly', 1, '$LATEST', '04b73e574e8abda93fe270569749505a56855124a431ed0d789673232f59f1b9', '{"kind":"timer","trigger":"hourly"}', 1795731785753474, 1795753385753474, 'queued', 1795731790195152, 1795731819966925, NULL, 4, 0, '', '', NULL, NULL, '\x7b224d657373616765223a22222c2254696d65223a22323032362d31312d32365432323a32333a30355a222c22547269676765724e616d65223a22686f75726c79222c2254797065223a2254696d6572227d');
INSERT INTO queue_events VALUES ('01a219f3-b3e4-71ca-b5ea-2cf1943cbf12', 'default/later', 1, '1', '16e26fe986c57da627ef48135c74bb8718399d8812756cb30b868d64d12a09fc', '{"kind":"direct"}', 1795731731428437, 1795753331428437, 'retrying', 1795751731892514, 1795731761442002, NULL, 1, 1, '{"number":1,"started_at":"2026-11-26T22:22:11.856156075Z","ended_at":"2026-11-26T22:22:11.8914863Z","status":430,"node":"golden-node","cold":true}
', '', NULL, NULL, '\x7b2270696e73223a2022612076657273696f6e227d');
INSERT INTO queue_events VALUES ('01a219f3-b62a-70f0-8977-b8e4c6776cae', 'default/later', 2, '$LATEST', '16e26fe986c57da627ef48135c74bb8718399d8812756cb30b868d64d12a09fc', '{"kind":"direct"}', 1795731732010600, 1795753332010600, 'retrying', 1795751732521085, 1795731762028758, NULL, 1, 1, '{"number":1,"started_at":"2026-11-26T22:22:12.420137115Z","ended_at":"2026-11-26T22:22:12.520274378Z","status":430,"node":"golden-node","cold":true}
', '', NULL, NULL, '\x7b2270696e73223a202261207265766973696f6e2074686174206973207265706c61636564227d');
INSERT INTO queue_events VALUES ('01a219f4-64e5-72b0-9638-61f81b26ff27', 'default/hello', 1, '$LATEST', 'ac1ffdb881bf73c909c9b0f1673254f170fae4914d48eacc8ea6d2c539b14ee2', '{"kind":"direct"}', 1795731776742176, 1795753376742176, 'succeeded', 1795731776742176, 1795731806746968, 1795731776753044, 1, 1, '{"number":1,"started_at":"2026-11-26T22:22:56.752136684Z","ended_at":"2026-11-26T22:22:56.752913541Z","status":200,"node":"golden-node","cold":false}
', '', '{"greeting": "héllo 函数", "event": {"name": "函数 😀", "nothing": null}}', NULL, '\x');
INSERT INTO queue_events VALUES ('01a219f4-6575-752f-b312-6ec005ba3eb5', 'default/hello', 2, '1', 'c57b9995d9ac8c0a06a27c97db249cee010dbf6ba3f9c9cc5817372615a4da8a', '{"kind":"direct"}', 1795731776885920, 1795753376885920, 'succeeded', 1795731776885920, 1795731806904193, 1795731777277033, 1, 1, '{"number":1,"started_at":"2026-11-26T22:22:57.270113506Z","ended_at":"2026-11-26T22:22:57.276799758Z","status":200,"node":"golden-node","cold":true}
', '', '{"greeting": "héllo 函数", "event": {}}', NULL, '\x');
INSERT INTO queue_events VALUES ('01a219f4-6767-72d8-ad02-1ec77523237b', 'default/fails', 1, '$LATEST', '23d486235712c5d3b00e312f584e7c1c0b54c9eed2d71eb0f06e5e86b05b05e4', '{"kind":"direct"}', 1795731777383991, 1795753377383991, 'failed', 1795731777946994, 1795731807951062, 1795731777962803, 2, 2, '{"number":1,"started_at":"2026-11-26T22:22:57.888500693Z","ended_at":"2026-11-26T22:22:57.944716866Z","status":430,"node":"golden-node","cold":true}
{"number":2,"started_at":"2026-11-26T22:22:57.95795518Z","ended_at":"2026-11-26T22:22:57.961627759Z","status":430,"node":"golden-node","cold":false}
', '', NULL, '{"statusCode":430,"errorCode":1,"errorMessage":"ValueError: böse","errorType":"ValueError","stackTrace":"Traceback (most recent call last):\n  File \"/var/user/index.py\", line 16, in main_handler\n    raise ValueError(event[\"raise\"])\nValueError: böse\n"}', '\x');
INSERT INTO queue_events VALUES ('01a219f4-69d3-71e4-9c7c-46e8a7c64a42', 'default/quick', 1, '$LATEST', '84fcfdbedd611d7a13c3e40e4934a37719138c99cf56a5dbd51137e312856d7a', '{"kind":"direct"}', 1795731778003516, 1795753378003516, 'failed', 1795731778003516, 1795731808006642, 1795731779417659, 1, 1, '{"number":1,"started_at":"2026-11-26T22:22:58.404983673Z","ended_at":"2026-11-26T22:22:59.416047738Z","status":433,"node":"golden-node","cold":true}
', '', NULL, '{"statusCode":433,"errorCode":-1,"errorMessage":"Invoking task timed out after 1 seconds"}', '\x');
INSERT INTO queue_events VALUES ('01a219f4-6f72-743c-9c42-b5205bb75c72', 'default/impatient', 1, '$LATEST', 'b117dc68e65286eb56a6e2203d97e4012b1b07f911cc7ee7d474cdabe1e30af3', '{"kind":"direct"}', 1795731779453195, 1795731809453195, 'expired', 1795731779453195, 1795731809475004, 1795731779540215, 1, 1, '{"number":1,"started_at":"2026-11-26T22:22:59.478571733Z","ended_at":"2026-11-26T22:22:59.538869162Z","status":430,"node":"golden-node","cold":false}
', '', NULL, '{"statusCode":430,"errorCode":1,"errorMessage":"ValueError: too late","errorType":"ValueError","stackTrace":"Traceback (most recent call last):\n  File \"/var/user/index.py\", line 16, in main_handler\n    raise ValueError(event[\"raise\"])\nValueError: too late\n"}', '\x');
INSERT INTO queue_events VALUES ('01a219f4-701d-7302-ba81-fafd4c8a9c6f', 'default/brief', 1, '$LATEST', '8f67274b3397fffb941fa31701364bd3e761495c1b40a486379a501853b1763e', '{"kind":"direct"}', 1795731779613685, 1795731781613685, 'expired', 1795731780613685, 1795731810797597, 1795731780801964, 6, 1, '', '', NULL, '{"statusCode":449,"errorCode":-1,"errorMessage":"no room for another sandbox: the function needs 4096 MB and the node has 1536 MB for all"}', '\x');
INSERT INTO queue_events VALUES ('01a219f3-be68-723b-b628-4763d7362dd0', 'default/slow', 1, '$LATEST', '00af8982f2b1d2697cb62bf42b110997ef9080a188fd31c18290a6116abfa678', '{"kind":"direct"}', 1795731734120180, 1795753334120180, 'running', 1795731734120180, 1795731814163891, NULL, 2, 2, '{"number":0,"started_at":"2026-11-26T22:22:14.14170784Z","ended_at":null,"status":null,"node":"golden-node","cold":false}
', '{"number":0,"started_at":"2026-11-26T22:22:44.158779623Z","ended_at":null,"status":null,"node":"golden-node","cold":false}
', NULL, NULL, '\x7b22736c656570223a203930307d');
INSERT INTO queue_events VALUES ('01a219f4-74ea-71f7-9d4c-78fd13e531a3', 'default/single', 1, '$LATEST', 'e4ec86ce04a572f9a7bd83bf053ddbbcb0c77122f3805051d6b33d167d9e0b6a', '{"kind":"direct"}', 1795731780842504, 1795731782842504, 'succeeded', 1795731780842504, 1795731810852911, 1795731785176735, 1, 1, '{"number":1,"started_at":"2026-11-26T22:23:01.163096846Z","ended_at":"2026-11-26T22:23:05.176501009Z","status":200,"node":"golden-node","cold":true}
', '', '{"greeting": null, "event": {"sleep": 4}}', NULL, '\x');
INSERT INTO queue_events VALUES ('01a219f4-7502-77bc-930c-49432d5a50fb', 'default/single', 2, '$LATEST', 'e4ec86ce04a572f9a7bd83bf053ddbbcb0c77122f3805051d6b33d167d9e0b6a', '{"kind":"direct"}', 1795731780866561, 1795731782866561, 'expired', 1795731780866561, 1795731815178461, 1795731785196638, 1, 1, '', '', NULL, NULL, '\x');
INSERT INTO queue_events VALUES ('01a219f4-865f-7600-9dd8-ba04ba7ee6e7', 'default/later', 3, '$LATEST', '496753154f3a69e121f10f86d22e47be185a4a6883dc24728e4411c4fa081b7b', '{"kind":"direct"}', 1795731785311698, 1795753385311698, 'retrying', 1795751785702431, 1795731815332267, NULL, 1, 1, '{"number":1,"started_at":"2026-11-26T22:23:05.639968519Z","ended_at":"2026-11-26T22:23:05.701488542Z","status":430,"node":"golden-node","cold":true}
', '', NULL, NULL, '\x7b2270696e73223a2022244c4154455354227d');
INSERT INTO queue_events VALUES ('01a219f4-87f0-72ab-9843-64cab94912ea', 'default/slow', 2, '$LATEST', '00af8982f2b1d2697cb62bf42b110997ef9080a188fd31c18290a6116abfa678', '{"kind":"direct"}', 1795731785712614, 1795753385712614, 'queued', 1795731785712614, 0, NULL, 0, 0, '', '', NULL, NULL, '\x7b227761697473223a2022666f7220746865206f6e6520746861742072756e73227d');
INSERT INTO queue_events VALUES ('01a219f4-8820-735b-a24c-3a9ff2f653ca', 'default/gone', 1, '$LATEST', 'e63cea8eb7f623ce8041733aafe2da2394be4afeecb903020ae2e60d4732fabe', '{"kind":"direct"}', 1795731785760306, 1795753385760306, 'failed', 1795731785817927, 1795731815824635, 1795731785867847, 2, 1, '', '', NULL, '{"statusCode":435,"errorCode":-1,"errorMessage":"function `default/gone` does not exist"}', '\x');
INSERT INTO queue_events VALUES ('01a219f4-8806-70a0-bbb7-f8064fdb1519', 'default/large', 1, '$LATEST', '04b73e574e8abda93fe270569749505a56855124a431ed0d789673232f59f1b9', '{"kind":"direct"}', 1795731785734379, 1795753385734379, 'queued', 1795731788085045, 1795731817809485, NULL, 4, 0, '', '', NULL, NULL, '\x7b227761697473223a2022666f7220726f6f6d227d');
INSERT INTO queue_events VALUES ('01a219f4-8910-7455-a29f-1451a87f66c3', 'default/ticker/each-second', 1, '$LATEST', 'adb528daeed6ac1b7c5342640c3fedf6e05acd4b02e529dfc227cae5d534cd46', '{"kind":"timer","trigger":"each-second"}', 1795731786000703, 1795753386000703, 'succeeded', 1795731786000703, 1795731816004151, 1795731786344499, 1, 1, '{"number":1,"started_at":"2026-11-26T22:23:06.340714139Z","ended_at":"2026-11-26T22:23:06.343949117Z","status":200,"node":"golden-node","cold":true}
', '', '{"greeting": null, "event": {"Message": "tick", "Time": "2026-11-26T22:23:06Z", "TriggerName": "each-second", "Type": "Timer"}}', NULL, '\x');
INSERT INTO queue_events VALUES ('01a219f4-8cf8-753b-af6d-2eb68124504d', 'default/ticker/each-second', 2, '$LATEST', 'adb528daeed6ac1b7c5342640c3fedf6e05acd4b02e529dfc227cae5d534cd46', '{"kind":"timer","trigger":"each-second"}', 1795731787000175, 1795753387000175, 'succeeded', 1795731787000175, 1795731817026077, 1795731787032459, 1, 1, '{"number":1,"started_at":"2026-11-26T22:23:07.027595663Z","ended_at":"2026-11-26T22:23:07.03204522Z","status":200,"node":"golden-node","cold":false}
', '', '{"greeting": null, "event": {"Message": "tick", "Time": "2026-11-26T22:23:07Z", "TriggerName": "each-second", "Type": "Timer"}}', NULL, '\x');

INSERT INTO queue_ticks VALUES ('default/ticker/each-second', 1795731787000000);

INSERT INTO queues VALUES ('default/large/hourly', 1, 1);
INSERT INTO queues VALUES ('default/hello', 0, 2);
INSERT INTO queues VALUES ('default/fails', 0, 1);
INSERT INTO queues VALUES ('default/quick', 0, 1);
INSERT INTO queues VALUES ('default/impatient', 0, 1);
INSERT INTO queues VALUES ('default/brief', 0, 1);
INSERT INTO queues VALUES ('default/single', 0, 2);
INSERT INTO queues VALUES ('default/later', 3, 3);
INSERT INTO queues VALUES ('default/slow', 1, 2);
INSERT INTO queues VALUES ('default/gone', 0, 1);
INSERT INTO queues VALUES ('default/ticker/each-second', 0, 2);
INSERT INTO queues VALUES ('default/large', 1, 1);

INSERT INTO registry_changes VALUES (1, NULL, NULL);
INSERT INTO registry_changes VALUES (2, 'default', 'absent');
INSERT INTO registry_changes VALUES (3, 'default', 'bash-runtime');
INSERT INTO registry_changes VALUES (4, 'default', 'brief');
INSERT INTO registry_changes VALUES (5, 'default', 'broken');
INSERT INTO registry_changes VALUES (6, 'default', 'buries');
INSERT INTO registry_changes VALUES (7, 'default', 'fails');
INSERT INTO registry_changes VALUES (8, 'default', 'gone');
INSERT INTO registry_changes VALUES (9, 'default', 'hello');
INSERT INTO registry_changes VALUES (10, 'default', 'hello-go');
INSERT INTO registry_changes VALUES (11, 'default', 'hello-node');
INSERT INTO registry_changes VALUES (12, 'default', 'hello-shell');
INSERT INTO registry_changes VALUES (13, 'default', 'impatient');
INSERT INTO registry_changes VALUES (14, 'default', 'large');
INSERT INTO registry_changes VALUES (15, 'default', 'later');
INSERT INTO registry_changes VALUES (16, 'default', 'quick');
INSERT INTO registry_changes VALUES (17, 'default', 'single');
INSERT INTO registry_changes VALUES (18, 'default', 'slow');
INSERT INTO registry_changes VALUES (19, 'default', 'ticker');
INSERT INTO registry_changes VALUES (20, 'default', 'worker');
INSERT INTO registry_changes VALUES (21, 'shop', 'hello-node');
INSERT INTO registry_changes VALUES (22, 'default', 'hello');
INSERT INTO registry_changes VALUES (23, 'default', 'later');
INSERT INTO registry_changes VALUES (24, 'default', 'hello');
INSERT INTO registry_changes VALUES (25, 'default', 'later');
INSERT INTO registry_changes VALUES (26, 'default', 'hello');
INSERT INTO registry_changes VALUES (27, 'default', 'absent');
INSERT INTO registry_changes VALUES (28, 'default', 'bash-runtime');
INSERT INTO registry_changes VALUES (29, 'default', 'brief');
INSERT INTO registry_changes VALUES (30, 'default', 'broken');
INSERT INTO registry_changes VALUES (31, 'default', 'buries');
INSERT INTO registry_changes VALUES (32, 'default', 'fails');
INSERT INTO registry_changes VALUES (33, 'default', 'gone');
INSERT INTO registry_changes VALUES (34, 'default', 'hello');
INSERT INTO registry_changes VALUES (35, 'default', 'hello-go');
INSERT INTO registry_changes VALUES (36, 'default', 'hello-node');
INSERT INTO registry_changes VALUES (37, 'default', 'hello-shell');
INSERT INTO registry_changes VALUES (38, 'default', 'impatient');
INSERT INTO registry_changes VALUES (39, 'default', 'large');
INSERT INTO registry_changes VALUES (40, 'default', 'later');
INSERT INTO registry_changes VALUES (41, 'default', 'quick');
INSERT INTO registry_changes VALUES (42, 'default', 'single');
INSERT INTO registry_changes VALUES (43, 'default', 'slow');
INSERT INTO registry_changes VALUES (44, 'default', 'ticker');
INSERT INTO registry_changes VALUES (45, 'default', 'worker');
INSERT INTO registry_changes VALUES (46, 'default', 'gone');
INSERT INTO registry_changes VALUES (47, 'default', 'ticker');
INSERT INTO registry_changes VALUES (48, 'default', 'ticker');

INSERT INTO revisions VALUES ('default', 'later', '16e26fe986c57da627ef48135c74bb8718399d8812756cb30b868d64d12a09fc', 'f98218059b7753b2f10ef637edd61cd47a4ca4b67d906cdcb890b5a41ecc8601', '{"runtime":"python","handler":"index.fail","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":20000,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{"GREETING":"later"}}', 1795731732729504);
INSERT INTO revisions VALUES ('default', 'absent', 'af3716d6d3d6270c2ebaf2616de9710aebf65d9d379ed09da6a41bf93a684e94', 'e4a6c31ab4419ebd0d92ddd7455eade2f59d6323da56aa0ae0b0a712e4a18242', '{"runtime":"python","handler":"index.absent","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731732985521);
INSERT INTO revisions VALUES ('default', 'bash-runtime', '650876b9b7d5b376b061ed4f23b77ba559e85f6a45f3c7f0f270668806fbb01a', 'f98218059b7753b2f10ef637edd61cd47a4ca4b67d906cdcb890b5a41ecc8601', '{"runtime":"custom","handler":"bootstrap","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733056933);
INSERT INTO revisions VALUES ('default', 'brief', '6934c9545425f0d7cd17649588da8bf99f3e8249f6bc02e21af8fc96bfa78b75', 'f98218059b7753b2f10ef637edd61cd47a4ca4b67d906cdcb890b5a41ecc8601', '{"runtime":"shell","handler":"run.sh","memory_mb":4096,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":2,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733096972);
INSERT INTO revisions VALUES ('default', 'broken', '80d694f40b91ec827f4de52d8919556aa4b5b73e090eb3a281bd8b04a502537a', 'f98218059b7753b2f10ef637edd61cd47a4ca4b67d906cdcb890b5a41ecc8601', '{"runtime":"python","handler":"broken.main_handler","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733120491);
INSERT INTO revisions VALUES ('default', 'buries', 'a4c39c5b2b52a118f32b2ee99e0297e542964fd45fa77e2bd50bd7c938021a54', 'f98218059b7753b2f10ef637edd61cd47a4ca4b67d906cdcb890b5a41ecc8601', '{"runtime":"python","handler":"index.work","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":1,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733132850);
INSERT INTO revisions VALUES ('default', 'fails', '46d457b095bc335d2afc14856f6ee27a2757dca4f1e889d7e2265a1763e9269e', 'f98218059b7753b2f10ef637edd61cd47a4ca4b67d906cdcb890b5a41ecc8601', '{"runtime":"python","handler":"index.main_handler","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":2,"retry_delay":{"secs":0,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733172892);
INSERT INTO revisions VALUES ('default', 'hello-go', '27e79c63e27bde267f91459aee730a24203c55bb2aa90aee668e937880cc6320', 'f98218059b7753b2f10ef637edd61cd47a4ca4b67d906cdcb890b5a41ecc8601', '{"runtime":"Go1","handler":"program","memory_mb":64,"timeout":{"secs":900,"nanos":0},"init_timeout":{"secs":300,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733347412);
INSERT INTO revisions VALUES ('default', 'hello-node', '9ffb6cdfe1b9e33048af4d8652eb4d4a386376f364a7308a358aaf9621b07cc2', 'f98218059b7753b2f10ef637edd61cd47a4ca4b67d906cdcb890b5a41ecc8601', '{"runtime":"nodejs","handler":"index.main_handler","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":4,"network":false,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733372455);
INSERT INTO revisions VALUES ('default', 'hello-shell', 'fcaaafd1c24bfe43c8a32af94d94582f2efe38422a682053b32a25584cd00706', 'f98218059b7753b2f10ef637edd61cd47a4ca4b67d906cdcb890b5a41ecc8601', '{"runtime":"shell","handler":"run.sh","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":true,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733440499);
INSERT INTO revisions VALUES ('default', 'impatient', 'bfeaf5ab2ea2a7155e1cc709c0e26079fb302b309e998e5752298cf4097e451e', 'f98218059b7753b2f10ef637edd61cd47a4ca4b67d906cdcb890b5a41ecc8601', '{"runtime":"python","handler":"index.main_handler","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":5,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":30,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733495875);
INSERT INTO revisions VALUES ('default', 'large', '01ce624a2ecfebf8b1be0c1b4ea5d5c447013eddfa368c59f190e2498f9fe3c0', 'f98218059b7753b2f10ef637edd61cd47a4ca4b67d906cdcb890b5a41ecc8601', '{"runtime":"Nodejs18.15","handler":"index.main_handler","memory_mb":4096,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733576866);
INSERT INTO revisions VALUES ('default', 'quick', 'bb9af03c1ea76404ec3dd39c8509dbafdf7d27199e8d692ba6f793d4d71204d9', 'f98218059b7753b2f10ef637edd61cd47a4ca4b67d906cdcb890b5a41ecc8601', '{"runtime":"python","handler":"index.main_handler","memory_mb":128,"timeout":{"secs":1,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":1,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":10},"env":{}}', 1795731733680494);
INSERT INTO revisions VALUES ('default', 'single', 'bb2162b623e55d2130d7de0530f8f04b146045fa5d3feea67a071568a4e098c1', 'f98218059b7753b2f10ef637edd61cd47a4ca4b67d906cdcb890b5a41ecc8601', '{"runtime":"python","handler":"index.main_handler","memory_mb":128,"timeout":{"secs":30,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":1,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":2,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733709051);
INSERT INTO revisions VALUES ('default', 'hello', 'c57b9995d9ac8c0a06a27c97db249cee010dbf6ba3f9c9cc5817372615a4da8a', 'f98218059b7753b2f10ef637edd61cd47a4ca4b67d906cdcb890b5a41ecc8601', '{"runtime":"Python3.10","handler":"index.main_handler","memory_mb":256,"timeout":{"secs":30,"nanos":0},"init_timeout":{"secs":10,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{"EMPTY":"","GREETING":"héllo 函数"}}', 1795731732669829);
INSERT INTO revisions VALUES ('default', 'brief', '8f67274b3397fffb941fa31701364bd3e761495c1b40a486379a501853b1763e', 'e4a6c31ab4419ebd0d92ddd7455eade2f59d6323da56aa0ae0b0a712e4a18242', '{"runtime":"shell","handler":"run.sh","memory_mb":4096,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":2,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733096972);
INSERT INTO revisions VALUES ('default', 'hello', '65853a02ef84ab7539000ab8f1c946642e6e37d308ee8496c34e7fe2abdc0c6e', 'f98218059b7753b2f10ef637edd61cd47a4ca4b67d906cdcb890b5a41ecc8601', '{"runtime":"Python3.10","handler":"index.main_handler","memory_mb":256,"timeout":{"secs":30,"nanos":0},"init_timeout":{"secs":10,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{"EMPTY":"","GREETING":"héllo 函数","MORE":""}}', 1795731733280783);
INSERT INTO revisions VALUES ('default', 'single', 'e4ec86ce04a572f9a7bd83bf053ddbbcb0c77122f3805051d6b33d167d9e0b6a', 'e4a6c31ab4419ebd0d92ddd7455eade2f59d6323da56aa0ae0b0a712e4a18242', '{"runtime":"python","handler":"index.main_handler","memory_mb":128,"timeout":{"secs":30,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":1,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":2,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733709051);
INSERT INTO revisions VALUES ('default', 'slow', 'a9b756b2144cb7d7b8208cf41a596554227030cc4b64dcdcb90013d0bc5b1f17', 'f98218059b7753b2f10ef637edd61cd47a4ca4b67d906cdcb890b5a41ecc8601', '{"runtime":"python","handler":"index.main_handler","memory_mb":128,"timeout":{"secs":900,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":1,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733764694);
INSERT INTO revisions VALUES ('default', 'bash-runtime', '576fc1b9fd5def6467c9cc8bff44cd2ce93dceaa2ac6bf034e329569387f442b', 'e4a6c31ab4419ebd0d92ddd7455eade2f59d6323da56aa0ae0b0a712e4a18242', '{"runtime":"custom","handler":"bootstrap","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733056933);
INSERT INTO revisions VALUES ('default', 'quick', '84fcfdbedd611d7a13c3e40e4934a37719138c99cf56a5dbd51137e312856d7a', 'e4a6c31ab4419ebd0d92ddd7455eade2f59d6323da56aa0ae0b0a712e4a18242', '{"runtime":"python","handler":"index.main_handler","memory_mb":128,"timeout":{"secs":1,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":1,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":10},"env":{}}', 1795731733680494);
INSERT INTO revisions VALUES ('default', 'ticker', '91b8ed92116670a7c3e4750f9726759dd06ed5a164f16ecbac7399c0da0c87af', 'f98218059b7753b2f10ef637edd61cd47a4ca4b67d906cdcb890b5a41ecc8601', '{"runtime":"python","handler":"index.main_handler","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733850757);
INSERT INTO revisions VALUES ('default', 'broken', '7926c57562d9b1c09fb9486e58f4cdb5ed859c7311eac17e3b9b6b0530cd40ba', 'e4a6c31ab4419ebd0d92ddd7455eade2f59d6323da56aa0ae0b0a712e4a18242', '{"runtime":"python","handler":"broken.main_handler","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733120491);
INSERT INTO revisions VALUES ('default', 'fails', '23d486235712c5d3b00e312f584e7c1c0b54c9eed2d71eb0f06e5e86b05b05e4', 'e4a6c31ab4419ebd0d92ddd7455eade2f59d6323da56aa0ae0b0a712e4a18242', '{"runtime":"python","handler":"index.main_handler","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":2,"retry_delay":{"secs":0,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733172892);
INSERT INTO revisions VALUES ('default', 'impatient', 'b117dc68e65286eb56a6e2203d97e4012b1b07f911cc7ee7d474cdabe1e30af3', 'e4a6c31ab4419ebd0d92ddd7455eade2f59d6323da56aa0ae0b0a712e4a18242', '{"runtime":"python","handler":"index.main_handler","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":5,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":30,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733495875);
INSERT INTO revisions VALUES ('default', 'later', '496753154f3a69e121f10f86d22e47be185a4a6883dc24728e4411c4fa081b7b', 'e4a6c31ab4419ebd0d92ddd7455eade2f59d6323da56aa0ae0b0a712e4a18242', '{"runtime":"python","handler":"index.fail","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":20000,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{"GREETING":"later","MORE":""}}', 1795731733616450);
INSERT INTO revisions VALUES ('default', 'later', 'fa2af68bc792bd8beae1e65a6dbcda3bad0c6dbd0af441d6924da6796cd2a778', 'f98218059b7753b2f10ef637edd61cd47a4ca4b67d906cdcb890b5a41ecc8601', '{"runtime":"python","handler":"index.fail","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":20000,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{"GREETING":"later","MORE":""}}', 1795731733616450);
INSERT INTO revisions VALUES ('default', 'ticker', 'adb528daeed6ac1b7c5342640c3fedf6e05acd4b02e529dfc227cae5d534cd46', 'e4a6c31ab4419ebd0d92ddd7455eade2f59d6323da56aa0ae0b0a712e4a18242', '{"runtime":"python","handler":"index.main_handler","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733850757);
INSERT INTO revisions VALUES ('default', 'worker', '0e7afd82633d9aaebc87911f44b449924d21ec2baeae274620b08908e7f77f44', 'f98218059b7753b2f10ef637edd61cd47a4ca4b67d906cdcb890b5a41ecc8601', '{"runtime":"python","handler":"index.work","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":3600,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733933090);
INSERT INTO revisions VALUES ('shop', 'hello-node', 'c034e0046941e06d1b7b8bde269859cd0b7818e4992cdd8faeddffe6392301c0', 'f98218059b7753b2f10ef637edd61cd47a4ca4b67d906cdcb890b5a41ecc8601', '{"runtime":"nodejs","handler":"index.main_handler","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":4,"network":false,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731731264075);
INSERT INTO revisions VALUES ('default', 'buries', '5b371046947ffa341fc5f4196e2a371521587b6b60227cd262e5c3d8b86396e0', 'e4a6c31ab4419ebd0d92ddd7455eade2f59d6323da56aa0ae0b0a712e4a18242', '{"runtime":"python","handler":"index.work","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":1,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733132850);
INSERT INTO revisions VALUES ('default', 'hello-go', '04153cca5953945eacc0c8d4638fb60dfd093f40e1ed24334261a4cd4224ada9', 'e4a6c31ab4419ebd0d92ddd7455eade2f59d6323da56aa0ae0b0a712e4a18242', '{"runtime":"Go1","handler":"program","memory_mb":64,"timeout":{"secs":900,"nanos":0},"init_timeout":{"secs":300,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733347412);
INSERT INTO revisions VALUES ('default', 'hello-shell', 'a7b5f58bbdb3de60eed8c1c38d1c1b40830b2cf7a9f95e26eab696a094673d1d', 'e4a6c31ab4419ebd0d92ddd7455eade2f59d6323da56aa0ae0b0a712e4a18242', '{"runtime":"shell","handler":"run.sh","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":true,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733440499);
INSERT INTO revisions VALUES ('default', 'large', '04b73e574e8abda93fe270569749505a56855124a431ed0d789673232f59f1b9', 'e4a6c31ab4419ebd0d92ddd7455eade2f59d6323da56aa0ae0b0a712e4a18242', '{"runtime":"Nodejs18.15","handler":"index.main_handler","memory_mb":4096,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733576866);
INSERT INTO revisions VALUES ('default', 'absent', '838c4dec46c794b5b24ccf129c464d9a6dd01b8c993c752e44b4e87ade381760', 'f98218059b7753b2f10ef637edd61cd47a4ca4b67d906cdcb890b5a41ecc8601', '{"runtime":"python","handler":"index.absent","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731732985521);
INSERT INTO revisions VALUES ('default', 'hello', 'ac1ffdb881bf73c909c9b0f1673254f170fae4914d48eacc8ea6d2c539b14ee2', 'e4a6c31ab4419ebd0d92ddd7455eade2f59d6323da56aa0ae0b0a712e4a18242', '{"runtime":"Python3.10","handler":"index.main_handler","memory_mb":256,"timeout":{"secs":30,"nanos":0},"init_timeout":{"secs":10,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{"EMPTY":"","GREETING":"héllo 函数","MORE":""}}', 1795731733280783);
INSERT INTO revisions VALUES ('default', 'hello-node', '938ef2e16dff48376830a9adba1205819c543d2919544a788ee5ce976826c4de', 'e4a6c31ab4419ebd0d92ddd7455eade2f59d6323da56aa0ae0b0a712e4a18242', '{"runtime":"nodejs","handler":"index.main_handler","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":4,"network":false,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733372455);
INSERT INTO revisions VALUES ('default', 'slow', '00af8982f2b1d2697cb62bf42b110997ef9080a188fd31c18290a6116abfa678', 'e4a6c31ab4419ebd0d92ddd7455eade2f59d6323da56aa0ae0b0a712e4a18242', '{"runtime":"python","handler":"index.main_handler","memory_mb":128,"timeout":{"secs":900,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":1,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733764694);
INSERT INTO revisions VALUES ('default', 'worker', '396822b3f10065a416afdc5f9f6a6dcb0453390f52165a6d862338992627c206', 'e4a6c31ab4419ebd0d92ddd7455eade2f59d6323da56aa0ae0b0a712e4a18242', '{"runtime":"python","handler":"index.work","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":null,"async_policy":{"max_attempts":3,"retry_delay":{"secs":3600,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{}}', 1795731733933090);

INSERT INTO routes VALUES ('/greet/{}', 'GET', 'default', 'hello', 'keyed');
INSERT INTO routes VALUES ('/greet/{}', 'POST', 'default', 'hello', 'keyed');
INSERT INTO routes VALUES ('/open/{}/{}', '*', 'default', 'hello', 'open');

INSERT INTO triggers VALUES ('default', 'buries', 'refunds', '{"type":"redis","url":"redis://:golden-password@127.0.0.1:16390","stream":"refunds","batch":10}', 1);
INSERT INTO triggers VALUES ('default', 'hello', 'keyed', '{"type":"http","path":"/greet/{name}","methods":["GET","POST"],"auth":"key","key":"Z5crEhTacrznmiI3tCzfJKrjS2jcjKAazV6Oi3G3"}', 1);
INSERT INTO triggers VALUES ('default', 'hello', 'open', '{"type":"http","path":"/open/{first}/{second}","methods":[],"auth":"none","key":null}', 1);
INSERT INTO triggers VALUES ('default', 'hello', 'yearly', '{"type":"timer","cron":"0 0 3 1 1 * *","timezone":"Asia/Shanghai","argument":"a \"happy\" new year\n新年"}', 1);
INSERT INTO triggers VALUES ('default', 'hello', 'off', '{"type":"timer","cron":"0 3 * * *","timezone":null,"argument":""}', 0);
INSERT INTO triggers VALUES ('default', 'large', 'hourly', '{"type":"timer","cron":"0 0 * * * * *","timezone":"UTC","argument":""}', 0);
INSERT INTO triggers VALUES ('default', 'worker', 'orders', '{"type":"redis","url":"redis://:golden-password@127.0.0.1:16390","stream":"orders","batch":5}', 1);
INSERT INTO triggers VALUES ('default', 'ticker', 'each-second', '{"type":"timer","cron":"* * * * * * *","timezone":null,"argument":"tick"}', 0);

INSERT INTO versions VALUES ('default', 'hello', 1, 'c57b9995d9ac8c0a06a27c97db249cee010dbf6ba3f9c9cc5817372615a4da8a', 1795731731384253);
INSERT INTO versions VALUES ('default', 'later', 1, '16e26fe986c57da627ef48135c74bb8718399d8812756cb30b868d64d12a09fc', 1795731731406525);
INSERT INTO versions VALUES ('default', 'hello', 2, '65853a02ef84ab7539000ab8f1c946642e6e37d308ee8496c34e7fe2abdc0c6e', 1795731732912364);

ALTER TABLE ONLY _sqlx_migrations
    ADD CONSTRAINT _sqlx_migrations_pkey PRIMARY KEY (version);

ALTER TABLE ONLY access_keys
    ADD CONSTRAINT access_keys_pkey PRIMARY KEY (id);

ALTER TABLE ONLY counters
    ADD CONSTRAINT counters_pkey PRIMARY KEY (name);

ALTER TABLE ONLY functions
    ADD CONSTRAINT functions_pkey PRIMARY KEY (namespace, name);

ALTER TABLE ONLY journal
    ADD CONSTRAINT journal_pkey PRIMARY KEY (seq);

ALTER TABLE ONLY nodes
    ADD CONSTRAINT nodes_pkey PRIMARY KEY (id);

ALTER TABLE ONLY queue_events
    ADD CONSTRAINT queue_events_pkey PRIMARY KEY (request_id);

ALTER TABLE ONLY queue_ticks
    ADD CONSTRAINT queue_ticks_pkey PRIMARY KEY (trigger_id);

ALTER TABLE ONLY queues
    ADD CONSTRAINT queues_pkey PRIMARY KEY (name);

ALTER TABLE ONLY registry_changes
    ADD CONSTRAINT registry_changes_pkey PRIMARY KEY (counter);

ALTER TABLE ONLY revisions
    ADD CONSTRAINT revisions_pkey PRIMARY KEY (namespace, function, digest);

ALTER TABLE ONLY routes
    ADD CONSTRAINT routes_pkey PRIMARY KEY (shape, method);

ALTER TABLE ONLY triggers
    ADD CONSTRAINT triggers_pkey PRIMARY KEY (namespace, function, name);

ALTER TABLE ONLY versions
    ADD CONSTRAINT versions_pkey PRIMARY KEY (namespace, function, number);

CREATE INDEX journal_by_function ON journal USING btree (namespace, function, seq);

CREATE INDEX journal_by_request ON journal USING btree (request_id, seq);

CREATE INDEX journal_by_time ON journal USING btree ("time");

CREATE INDEX queue_events_buried ON queue_events USING btree (queue) WHERE (state = ANY (ARRAY['failed'::text, 'expired'::text]));

CREATE INDEX queue_events_ended ON queue_events USING btree (ended_at) WHERE (ended_at IS NOT NULL);

CREATE INDEX queue_events_held ON queue_events USING btree (queue, held_until, seq) WHERE (state = 'running'::text);

CREATE INDEX queue_events_waiting ON queue_events USING btree (queue, due_at, seq, accepted_at) WHERE (state = ANY (ARRAY['queued'::text, 'retrying'::text]));

CREATE INDEX routes_by_function ON routes USING btree (namespace, function);
