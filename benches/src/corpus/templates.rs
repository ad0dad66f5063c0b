//! Lines as they are written, with places for what is planted and for what is not.

/// Templates: `⟦kind⟧` is planted, `⟨filler⟩` is not.
pub(super) const DENSE: &[&str] = &[
    // nginx
    r#"⟨ip⟩ - - [⟨clf⟩] "GET /api/v2/customers?email=⟦email⟧&page=⟨small⟩ HTTP/1.1" 200 ⟨number⟩ "-" "Mozilla/5.0 (X11; Linux x86_64)" rt=0.⟨small⟩"#,
    r#"⟨ip⟩ - - [⟨clf⟩] "POST /login?phone=⟦phone⟧&sms=1 HTTP/1.1" 302 0 "https://shop.example/login" "okhttp/4.9.3" rt=0.⟨small⟩"#,
    r#"⟨ip⟩ - - [⟨clf⟩] "GET /track?no=SF⟨waybill⟩&api_key=⟦api_key⟧ HTTP/2.0" 200 ⟨number⟩ "-" "curl/7.88.1""#,
    // Spring
    r"⟨time⟩  INFO 1 --- [nio-8080-exec-⟨small⟩] c.s.order.OrderService : order ⟨order⟩ created, receiver(name=⟦name⟧, phone=⟦phone⟧, address=⟦address⟧)",
    r"⟨time⟩  WARN 1 --- [nio-8080-exec-⟨small⟩] c.s.user.AuthService : login failed: password=⟦password⟧ trace=⟨hex⟩",
    r"⟨time⟩  INFO 1 --- [task-⟨small⟩] c.s.pay.PayClient : 支付成功 订单号=⟨order⟩ 卡号=⟦card⟧ 金额=⟨number⟩.00 耗时⟨small⟩ms",
    r"⟨time⟩  INFO 1 --- [task-⟨small⟩] c.s.user.RealName : 实名认证 姓名：⟦name⟧ 身份证号：⟦national_id⟧ 结果=通过",
    r"⟨time⟩ ERROR 1 --- [task-⟨small⟩] c.s.mail.Sender : cannot deliver to ⟦email⟧: 550 mailbox unavailable",
    r"⟨time⟩ DEBUG 1 --- [nio-8080-exec-⟨small⟩] c.s.gateway.Filter : Authorization: Bearer ⟦token⟧",
    // MyBatis
    r"⟨time⟩ DEBUG c.s.m.UserMapper.insert - ==> Parameters: ⟦name⟧(String), ⟦phone⟧(String), ⟦email⟧(String), ⟨small⟩(Integer)",
    r"⟨time⟩ DEBUG c.s.m.CardMapper.select - ==> Parameters: ⟦card⟧(String), ⟨order⟩(Long)",
    // Laravel
    r#"[⟨date⟩] production.INFO: order.paid {"order_id":"⟨order⟩","email":"⟦email⟧","mobile":"⟦phone⟧","sku":"⟨ean⟩"}"#,
    r#"[⟨date⟩] production.INFO: \u6536\u8d27 {"receiver_name":"⟦escaped_name⟧","mobile":"⟦phone⟧","order_sn":"⟨order⟩"}"#,
    r#"[⟨date⟩] production.ERROR: SQLSTATE[HY000] [1045] Access denied (Connection: mysql://app:⟦password⟧@10.0.0.5/shop)"#,
    // Node
    r#"{"level":30,"time":⟨epoch⟩,"pid":17,"hostname":"web-⟨small⟩","reqId":"⟨uuid⟩","email":"⟦email⟧","msg":"signup","responseTime":⟨small⟩}"#,
    r#"{"level":40,"time":⟨epoch⟩,"pid":17,"msg":"refund to ⟦iban⟧ is queued","order":"⟨order⟩","token_count":⟨small⟩}"#,
    r#"{"level":30,"time":⟨epoch⟩,"pid":17,"req":{"headers":{"authorization":"Bearer ⟦token⟧","user-agent":"axios/1.6.0"}},"msg":"request"}"#,
    r#"{"level":50,"time":⟨epoch⟩,"pid":17,"err":"upload failed","accessKeyId":"⟦api_key⟧","bucket":"media-eu","msg":"oss"}"#,
    r"⟨time⟩ [客服] 客户来电 ⟦phone⟧，反馈包裹 SF⟨waybill⟩ 未收到，邮箱 ⟦email⟧",
    r"⟨time⟩ [仓库] 发货 收货人：⟦name⟧ 电话：⟦phone⟧ 地址：⟦address⟧ 单号 ⟨order⟩",
    // Kinds behind keys
    r#"{"level":30,"time":⟨epoch⟩,"msg":"pay","cardNo":"⟦card⟧","cvv":"⟦cvv⟧","holderName":"⟦latin_name⟧","orderId":"⟨order⟩"}"#,
    r"⟨time⟩  INFO 1 --- [task-⟨small⟩] c.s.pay.Payout : Payout(accountNo=⟦bank_account⟧, bankName=ICBC, amount=⟨number⟩.00)",
    r"⟨time⟩  INFO 1 --- [task-⟨small⟩] c.s.customs.Declare : 清关 护照号：⟦passport⟧，出生日期：⟦birth_date⟧，单号 ⟨order⟩",
    r#"{"level":30,"time":⟨epoch⟩,"msg":"wechat login","openid":"⟦user_id⟧","unionid":"⟦user_id⟧","reqId":"⟨uuid⟩"}"#,
    r"⟨time⟩  INFO 1 --- [task-⟨small⟩] c.s.sms.Sender : to ⟦phone⟧: 您的验证码是⟦code⟧，5分钟内有效",
    r#"⟨ip⟩ - - [⟨clf⟩] "GET /cart HTTP/1.1" 200 ⟨number⟩ "Cookie: ⟦cookie⟧""#,
    r"⟨time⟩ DEBUG c.s.m.NoteMapper.insert - ==> Parameters: ⟦sql_param⟧(String), ⟨order⟩(String), 1(Integer), PAID(String)",
    r"⟨time⟩ DEBUG org.hibernate.orm.jdbc.bind - binding parameter (1:VARCHAR) <- [⟦sql_param⟧]",
    r"⟨time⟩  WARN 1 --- [main] c.s.boot.Keys : -----BEGIN PRIVATE KEY-----\n⟦private_key⟧\n-----END PRIVATE KEY----- cannot be parsed",
    // Identities and numbers of other countries
    r#"{"level":30,"time":⟨epoch⟩,"msg":"kyc","ssn":"⟦us_ssn⟧","sku":"⟨ean⟩","trace_id":"⟨hex⟩"}"#,
    r"⟨time⟩ support: customer wrote from ⟦e164⟧, parcel ⟨waybill⟩ is late, answer to ⟦email⟧",
    // Other writings
    r#"[⟨date⟩] production.INFO: pay {"user":"{"mobile":"⟦phone⟧","password":"⟦password_word⟧"}","sn":"⟨order⟩"}"#,
    r#"[⟨date⟩] production.INFO: {"url":"https:\/\/shop.example\/o\/⟨small⟩","mail":"⟦unicode_email⟧","note":"已付"}"#,
    r#"⟨ip⟩ - - [⟨clf⟩] "GET /s?email=⟦percent_email⟧&tel=%2B86⟦bare_phone⟧&utm=a HTTP/1.1" 200 ⟨number⟩"#,
    r"⟨time⟩ [客服] 回电 ⟦wide_phone⟧ 邮箱 ⟦zero_width_email⟧ 已记录",
    r"a:2:{s:8:⟨quote⟩password⟨quote⟩;s:12:⟨quote⟩⟦password_word⟧⟨quote⟩;s:5:⟨quote⟩order⟨quote⟩;s:22:⟨quote⟩⟨order⟩⟨quote⟩;}",
    r"⟨time⟩ DEBUG response <consignee><name>⟦name⟧</name><phone>⟦phone⟧</phone></consignee> order=⟨order⟩",
    r#"[⟨date⟩] production.INFO: Array ( [mobile] => ⟦phone⟧ [email] => ⟦email⟧ [order_sn] => ⟨order⟩ )"#,
    // Further languages and writings
    r#"{"log":"⟨time⟩ INFO login {\"mobile\":\"⟦phone⟧\",\"password\":\"⟦password_word⟧\",\"order\":\"⟨order⟩\"}\n","stream":"stdout"}"#,
    r#"level=info msg="order paid" phone=⟦phone⟧ email=⟦email⟧ order_id=⟨order⟩ ship_to="⟦latin_address⟧" took=⟨small⟩ms"#,
    r"⟨time⟩ [ERROR] payments: charge failed for {'card_number': '⟦card⟧', 'cvc': '⟦cvv⟧', 'holder_name': '⟦latin_name⟧', 'order_id': '⟨order⟩'}",
    r"⟨time⟩ INFO customs: declared pccc=⟦pccc⟧ cpf=⟦cpf⟧ order=⟨order⟩",
    r"⟨time⟩ WARN cache: cannot reach redis://:⟦password_word⟧@cache:6379/⟨small⟩, retry in ⟨small⟩ s",
    r#"{"level":20,"time":⟨epoch⟩,"sql":"select id from buyers where note = ?","bindings":["⟦sql_param⟧",⟨small⟩,"PAID"]}"#,
    r"⟨time⟩ DEBUG insert into buyers (name, phone, city) values ('⟦name⟧', '⟦phone⟧', 'SZ')",
    r"⟨time⟩ DEBUG kubectl create secret generic db --db-password ⟦password_word⟧ --namespace shop",
    // Cut in the middle of a value
    r#"{"level":50,"time":⟨epoch⟩,"msg":"upstream","body":"{"receiver":{"mobile":"⟦phone⟧","password":"⟦password_word⟧"#,
];

/// Lines without anything to mask.
pub(super) const CLEAN: &[&str] = &[
    r#"⟨ip⟩ - - [⟨clf⟩] "GET /static/app.⟨short_hex⟩.js HTTP/2.0" 200 ⟨number⟩ "https://shop.example/" "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4)" rt=0.⟨small⟩ uct="0.001""#,
    r#"⟨ip⟩ - - [⟨clf⟩] "GET /api/v1/orders/⟨order⟩ HTTP/1.1" 200 ⟨number⟩ "-" "okhttp/4.9.3" rt=0.⟨small⟩"#,
    r"⟨time⟩  INFO 1 --- [nio-8080-exec-⟨small⟩] c.s.order.OrderService : order ⟨order⟩ moved to PACKED in ⟨small⟩ ms, trace ⟨hex⟩",
    r"⟨time⟩  INFO 1 --- [scheduling-1] c.s.stock.StockJob : 库存同步完成 共⟨number⟩条 商品条码⟨ean⟩ 耗时⟨small⟩ms",
    r"⟨time⟩  WARN 1 --- [task-⟨small⟩] c.zaxxer.hikari.pool.PoolBase : HikariPool-1 - 5.0.1 failed to validate connection (⟨short_hex⟩), possibly consider a shorter maxLifetime",
    r"	at com.shop.order.OrderController.create(OrderController.java:⟨small⟩)",
    r"	at org.springframework.web.servlet.FrameworkServlet.service(FrameworkServlet.java:885) ~[spring-webmvc-5.3.31.jar!/:5.3.31]",
    r"⟨time⟩ DEBUG c.s.m.OrderMapper.select - <==      Total: ⟨small⟩",
    r#"[⟨date⟩] production.INFO: job processed {"job":"App\\Jobs\\SyncStock","attempts":1,"uuid":"⟨uuid⟩","waybill":"SF⟨waybill⟩"}"#,
    r#"{"level":30,"time":⟨epoch⟩,"pid":17,"hostname":"web-⟨small⟩","msg":"cache refreshed","keys":⟨number⟩,"commit":"⟨sha⟩"}"#,
    r#"{"level":20,"time":⟨epoch⟩,"pid":17,"msg":"completion","model":"small-2","token_count":⟨number⟩,"password_reset":false}"#,
    r"⟨time⟩ [网关] 请求 /api/v1/goods/⟨ean⟩ 返回 200 用时 ⟨small⟩ 毫秒",
    // Looks like it and is not
    r"⟨time⟩  INFO 1 --- [task-⟨small⟩] c.s.ship.Track : waybill=⟨phone_like⟩ trackingNo=⟨card_like⟩ batchNo=⟨phone_like⟩",
    r#"{"level":30,"time":⟨epoch⟩,"msg":"ok","order_id":⟨card_like⟩,"spanId":"⟨short_hex⟩⟨short_hex⟩","traceId":"⟨hex⟩"}"#,
    r#"⟨ip⟩ - - [⟨clf⟩] "GET /orders/⟨card_like⟩?v=⟨short_hex⟩&ts=⟨epoch⟩ HTTP/2.0" 304 0 "-" "Mozilla/5.0" rt=0.⟨small⟩"#,
    r"⟨time⟩  INFO image registry.example/shop/api@sha256:⟨hex⟩⟨hex⟩ pulled in ⟨small⟩.⟨small⟩s",
    r"⟨time⟩  INFO event ⟨epoch⟩000 lag ⟨epoch⟩000000 ns offset=⟨waybill⟩ partition=⟨small⟩",
    r"⟨time⟩ 订单号：⟨card_like⟩ 运单号：⟨phone_like⟩ 商品编号：⟨ean⟩ 状态：已发货",
    r"⟨time⟩ password reset requested, token_count=⟨number⟩, session expired after ⟨small⟩ min, max_tokens=512",
    r"⟨time⟩ app 3.⟨small⟩.⟨small⟩-rc.1 commit ⟨sha⟩ at http://localhost:⟨number⟩/health 10.0.⟨small⟩.⟨small⟩",
    r"⟨time⟩ phone verification enabled, email queue empty, address book synced, card layout updated",
    r#"{"level":30,"time":⟨epoch⟩,"amount":⟨number⟩.50,"price":"¥⟨number⟩.00","ratio":0.⟨phone_like⟩,"barcode":"⟨ean⟩"}"#,
    r"⟨time⟩ upload_⟨phone_like⟩_⟨short_hex⟩.jpg stored as part-⟨small⟩ of ⟨uuid⟩",
    r"⟨time⟩ 深圳市仓库今日出库⟨number⟩件，杭州市仓库⟨small⟩件，验证码服务正常，密码策略已更新",
];

/// What the default policy keeps and others take.
pub(super) const NETWORK: &[&str] = &[
    r#"⟦ip⟧ - ⟨small⟩ [⟨clf⟩] "GET /api/v1/orders/⟨order⟩ HTTP/1.1" 200 ⟨number⟩ "-" "okhttp/4.9.3" rt=0.⟨small⟩"#,
    r"⟨time⟩  INFO 1 --- [task-⟨small⟩] c.s.user.Login : username=⟦username⟧ ip=⟦ip⟧ version=3.⟨small⟩.⟨small⟩",
    r#"{"level":30,"time":⟨epoch⟩,"msg":"locate","lat":⟦geo⟧,"lng":⟦geo⟧,"deviceId":"⟦device_id⟧"}"#,
    r"⟨time⟩ dhcpd: lease for ⟦mac⟧ on eth⟨small⟩, order ⟨order⟩",
    r"⟨time⟩ nginx: upstream [⟦ip6⟧]:8080 timed out while reading, request ⟨uuid⟩",
    r"⟨time⟩ [用户] 昵称：⟦username⟧，设备 imei=⟦device_id⟧，单号 ⟨order⟩",
];

/// Events of several lines, as a reader joins them.
pub(super) const EVENTS: &[&str] = &[
    "⟨time⟩ INFO response {⟨newline⟩  \"consignee\": \"⟦name⟧\",⟨newline⟩  \"mobile\": \"⟦phone⟧\",⟨newline⟩  \"order\": \"⟨order⟩\"⟨newline⟩}",
    "⟨time⟩ ERROR cannot pay⟨newline⟩java.lang.IllegalStateException: card=⟦card⟧⟨newline⟩\tat com.shop.Pay.run(Pay.java:⟨small⟩)⟨newline⟩Caused by: a.b.C: no answer for ⟦email⟧⟨newline⟩\t... ⟨small⟩ more",
    "⟨time⟩ WARN key is⟨newline⟩-----BEGIN RSA PRIVATE KEY-----⟨newline⟩⟦private_key⟧⟨newline⟩⟦private_key⟧⟨newline⟩-----END RSA PRIVATE KEY-----⟨newline⟩done",
    "Array⟨newline⟩(⟨newline⟩    [mobile] => ⟦phone⟧⟨newline⟩    [password] => ⟦password_word⟧⟨newline⟩    [order_sn] => ⟨order⟩⟨newline⟩)",
    "buyer:⟨newline⟩  name: ⟦name⟧⟨newline⟩  address: ⟦address⟧⟨newline⟩  email: ⟦email⟧⟨newline⟩order: ⟨order⟩",
    "⟨time⟩ DEBUG POST /login⟨newline⟩Cookie: ⟦cookie⟧⟨newline⟩Authorization: Bearer ⟦token⟧⟨newline⟩Accept: */*",
];
