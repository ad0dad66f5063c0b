//! Log lines as shops write them, with personal data and secrets planted at known places.
//!
//! nginx, Java (Spring, MyBatis), PHP (Laravel), Node (pino); English and Chinese. Beside what must be masked there are
//! numbers and words that look like it and must stay: order numbers that pass a card's check, waybills like mobile numbers,
//! digests, versions, `token_count`. JSON within JSON, `\u` and percent escapes, full-width signs, cut lines.
//!
//! # Invariants
//! - The same seed gives the same lines.
//! - Every planted value is of the form that its kind asks for: check digits are right, keys and shapes are real. All of
//!   them are made up.
//!
//! Left out: IP and interface addresses, devices, places and user names, which the default policy keeps.

use crate::random::Random;
use shipwatch_common::time::UnixMs;

/// A value that must not be readable any more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Planted {
    /// What it is.
    pub kind: &'static str,
    /// First byte in the line.
    pub start: usize,
    /// Behind its last byte.
    pub end: usize,
}

/// A line and what was planted in it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Line {
    /// Without a line break.
    pub text: String,
    /// In order.
    pub planted: Vec<Planted>,
}

/// Templates: `⟦kind⟧` is planted, `⟨filler⟩` is not.
const DENSE: [&str; 39] = [
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
    // Cut in the middle of a value
    r#"{"level":50,"time":⟨epoch⟩,"msg":"upstream","body":"{"receiver":{"mobile":"⟦phone⟧","password":"⟦password_word⟧"#,
];

/// Lines without anything to mask.
const CLEAN: [&str; 24] = [
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

/// Makes lines.
#[derive(Debug)]
pub struct Corpus {
    random: Random,
    dense_percent: u64,
    ms: UnixMs,
}

impl Corpus {
    /// `dense_percent` of the lines have something planted. The first line's time is `start_ms`.
    #[must_use]
    pub const fn new(seed: u64, dense_percent: u64, start_ms: UnixMs) -> Self {
        Self { random: Random::new(seed), dense_percent, ms: start_ms }
    }

    /// The next line.
    pub fn line(&mut self) -> Line {
        self.ms += i64::from(self.random.below(40) == 0);
        let templates: &[&str] = if self.random.below(100) < self.dense_percent { &DENSE } else { &CLEAN };
        let mut rest = *self.random.pick(templates);
        let mut line = Line::default();
        while let Some(at) = rest.find(['⟦', '⟨']) {
            line.text.push_str(&rest[..at]);
            let planted = rest[at..].starts_with('⟦');
            let body = &rest[at + '⟦'.len_utf8()..];
            let Some(end) = body.find(['⟧', '⟩']) else { break };
            let name = &body[..end];
            let start = line.text.len();
            if planted {
                let (kind, value) = self.planted(name);
                line.text.push_str(&value);
                line.planted.push(Planted { kind, start, end: line.text.len() });
            } else {
                let value = self.filler(name);
                line.text.push_str(&value);
            }
            rest = &body[end + '⟧'.len_utf8()..];
        }
        line.text.push_str(rest);
        line
    }

    /// Lines of at least this many bytes together, line breaks counted.
    pub fn lines(&mut self, bytes: usize) -> Vec<Line> {
        let (mut lines, mut made) = (Vec::new(), 0);
        while made < bytes {
            let line = self.line();
            made += line.text.len() + 1;
            lines.push(line);
        }
        lines
    }

    fn planted(&mut self, name: &str) -> (&'static str, String) {
        let random = &mut self.random;
        match name {
            "email" => ("email", email(random)),
            "phone" => ("phone", phone(random)),
            "name" => ("name", person(random)),
            "escaped_name" => ("name", person(random).chars().map(|han| format!("\\u{:04x}", u32::from(han))).collect()),
            "address" => ("address", address(random)),
            "national_id" => ("national_id", national_id(random)),
            "card" => ("card", card(random)),
            "iban" => ("iban", iban(random)),
            "token" => ("token", jwt(random)),
            "api_key" => ("api_key", api_key(random)),
            "password" => ("password", random.text("abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789!#*_", 12)),
            "latin_name" => ("name", latin_name(random)),
            "cvv" => ("cvv", random.digits(3)),
            "bank_account" => ("bank_account", format!("{}{}", 1 + random.below(9), random.digits(15))),
            "passport" => ("passport", format!("E{}", random.digits(8))),
            "birth_date" => ("birth_date", format!("{}-{:02}-{:02}", 1950 + random.below(55), 1 + random.below(12), 1 + random.below(28))),
            "user_id" => ("user_id", format!("o{}", random.text(LETTERS, 27))),
            "code" => ("code", random.digits(6)),
            "cookie" => ("cookie", format!("uid={}; cart={}", random.text(LETTERS, 20), random.digits(9))),
            "sql_param" => ("sql_param", format!("请放门口{}", person(random))),
            "private_key" => ("private_key", random.text(LETTERS, 64)),
            "us_ssn" => ("national_id", format!("{}-{:02}-{:04}", 100 + random.below(500), 1 + random.below(99), 1 + random.below(9_999))),
            "e164" => ("phone", format!("+49 151 {}", random.digits(8))),
            "bare_phone" => ("phone", format!("13{}", random.digits(9))),
            "wide_phone" => ("phone", wide(&format!("13{}", random.digits(9)))),
            "unicode_email" => ("email", email(random).replace('@', "\\u0040")),
            "percent_email" => ("email", email(random).replace('@', "%40")),
            "zero_width_email" => ("email", email(random).replace('@', "\u{200b}@")),
            "password_word" => ("password", random.text(LETTERS, 12)),
            other => ("unknown", other.to_owned()),
        }
    }

    fn filler(&mut self, name: &str) -> String {
        const HEX: &str = "0123456789abcdef";
        let seconds = self.ms.div_euclid(1000).rem_euclid(86_400);
        let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        let (year, month, day) = civil(self.ms.div_euclid(86_400_000));
        let (ms, random) = (self.ms, &mut self.random);
        match name {
            "time" => format!("{year}-{month:02}-{day:02} {clock}.{:03}", ms.rem_euclid(1000)),
            "date" => format!("{year}-{month:02}-{day:02} {clock}"),
            "clf" => format!("{day:02}/{}/{year}:{clock} +0000", MONTHS.get(month as usize - 1).unwrap_or(&"Jan")),
            "epoch" => ms.to_string(),
            "ip" => format!("10.{}.{}.{}", random.below(256), random.below(256), 1 + random.below(254)),
            "small" => (1 + random.below(99)).to_string(),
            "number" => (100 + random.below(99_900)).to_string(),
            // Date, time and a sequence, as shops number their orders.
            "order" => format!("{year}{month:02}{day:02}{}{}", clock.replace(':', ""), random.digits(4)),
            "waybill" => random.digits(13),
            "quote" => "\"".to_owned(),
            "phone_like" => format!("13{}", random.digits(9)),
            "card_like" => card(random),
            "ean" => ean(random),
            "hex" => random.text(HEX, 32),
            "sha" => random.text(HEX, 40),
            "short_hex" => random.text(HEX, 8),
            "uuid" => [8, 4, 4, 4, 12].map(|length| random.text(HEX, length)).join("-"),
            other => other.to_owned(),
        }
    }
}

const LETTERS: &str = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789";

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Year, month and day of a day since 1970, by counting years from March so that the leap day comes last.
pub(crate) const fn civil(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * from_march + 2) / 5 + 1) as u32;
    let month = (if from_march < 10 { from_march + 3 } else { from_march - 9 }) as u32;
    (year_of_era + era * 400 + (month <= 2) as i64, month, day)
}

fn email(random: &mut Random) -> String {
    let letters = "abcdefghijklmnopqrstuvwxyz";
    let length = 3 + random.below(8) as usize;
    let local = random.text(letters, length);
    let more = if random.below(2) == 0 { format!(".{}", random.text(letters, 4)) } else { random.digits(3) };
    let domain = random.pick(&["gmail.com", "qq.com", "163.com", "outlook.de", "example.co.uk", "mail.shop.example"]);
    format!("{local}{more}@{domain}")
}

fn phone(random: &mut Random) -> String {
    let (second, rest) = (3 + random.below(7), random.digits(9));
    match random.below(5) {
        0 => format!("+861{second}{rest}"),
        1 => format!("1{second}{}-{}-{}", &rest[..1], &rest[1..5], &rest[5..]),
        _ => format!("1{second}{rest}"),
    }
}

fn person(random: &mut Random) -> String {
    let family = random.pick(&["王", "李", "张", "刘", "陈", "杨", "赵", "黄", "周", "吴", "徐", "孙", "欧阳"]);
    let given = random.pick(&["伟", "芳", "秀英", "娜", "敏", "静", "丽", "强", "磊", "洋", "艳梅", "子轩", "雨桐", "建国"]);
    format!("{family}{given}")
}

fn latin_name(random: &mut Random) -> String {
    let given = random.pick(&["Anna", "Jonas", "Maria", "Peter", "Wei", "Olivia"]);
    format!("{given} {}", random.pick(&["Keller", "Smith", "Garcia", "Novak", "Zhang"]))
}

/// In full-width signs.
fn wide(text: &str) -> String {
    text.chars().map(|sign| char::from_u32(u32::from(sign) + 0xFEE0).unwrap_or(sign)).collect()
}

fn address(random: &mut Random) -> String {
    let city = random.pick(&["广东省深圳市南山区", "浙江省杭州市西湖区", "江苏省苏州市工业园区", "四川省成都市武侯区", "上海市浦东新区"]);
    let street = random.pick(&["科技园路", "文三路", "人民南路", "世纪大道", "中山北街"]);
    format!("{city}{street}{}号{}栋{}室", 1 + random.below(900), 1 + random.below(30), 101 + random.below(2_000))
}

/// Eighteen characters with the check digit of GB 11643.
fn national_id(random: &mut Random) -> String {
    let region = random.pick(&["110101", "310115", "440305", "330106", "510107", "320506"]);
    let (year, month, day) = (1950 + random.below(55), 1 + random.below(12), 1 + random.below(28));
    let body = format!("{region}{year}{month:02}{day:02}{}", random.digits(3));
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    let sum: u32 = body.bytes().zip(WEIGHTS).map(|(digit, weight)| u32::from(digit - b'0') * weight).sum();
    format!("{body}{}", char::from(b"10X98765432"[sum as usize % 11]))
}

/// Sixteen or nineteen digits with an issuer's beginning and Luhn's check digit.
fn card(random: &mut Random) -> String {
    let (issuer, length) = *random.pick(&[("4", 16), ("52", 16), ("6222", 19), ("6217", 16), ("55", 16)]);
    let body = format!("{issuer}{}", random.digits(length - 1 - issuer.len()));
    let sum: u32 = body
        .bytes()
        .rev()
        .enumerate()
        .map(|(at, digit)| {
            let digit = u32::from(digit - b'0');
            if at % 2 == 0 { digit * 2 / 10 + digit * 2 % 10 } else { digit }
        })
        .sum();
    format!("{body}{}", (10 - sum % 10) % 10)
}

/// A German account number with the check digits of ISO 13616.
fn iban(random: &mut Random) -> String {
    let account = random.digits(18);
    // Behind the account come D, E as 13, 14 and the check digits as 00.
    let rest = format!("{account}131400").bytes().fold(0u32, |rest, digit| (rest * 10 + u32::from(digit - b'0')) % 97);
    format!("DE{:02}{account}", 98 - rest)
}

fn jwt(random: &mut Random) -> String {
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // {"alg":"HS256"} and {"sub":"…
    format!("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOi{}.{}", random.text(alphabet, 60), random.text(alphabet, 43))
}

fn api_key(random: &mut Random) -> String {
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    match random.below(2) {
        0 => format!("AKIA{}", random.text(alphabet, 16)),
        _ => format!("LTAI5t{}", random.text("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz123456789", 18)),
    }
}

/// Thirteen digits with the check digit of EAN-13.
fn ean(random: &mut Random) -> String {
    let body = format!("690{}", random.digits(9));
    let sum: u32 = body.bytes().enumerate().map(|(at, digit)| u32::from(digit - b'0') * if at % 2 == 0 { 1 } else { 3 }).sum();
    format!("{body}{}", (10 - sum % 10) % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn what_is_planted_lies_where_it_is_said_to() {
        let (first, second) = (Corpus::new(5, 60, 0).lines(200_000), Corpus::new(5, 60, 0).lines(200_000));
        assert_eq!(first, second, "the same seed gave other lines");
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        let dense = first.iter().filter(|line| !line.planted.is_empty()).count();
        assert!((0.55..0.65).contains(&(dense as f64 / first.len() as f64)), "{dense} of {}", first.len());
        for line in &first {
            assert!(!line.text.contains(['⟦', '⟧', '⟨', '⟩', '\n']), "{}", line.text);
            for planted in &line.planted {
                *kinds.entry(planted.kind).or_default() += 1;
                let value = &line.text[planted.start..planted.end];
                let fits = match planted.kind {
                    "email" => ["@", "%40", "\\u0040"].iter().any(|sign| value.contains(sign)),
                    "phone" => value.chars().filter(|sign| sign.is_numeric()).count() >= 11,
                    "token" => value.starts_with("eyJ"),
                    "iban" => value.starts_with("DE") && value.len() == 22,
                    "national_id" => matches!(value.len(), 11 | 18),
                    _ => !value.is_empty(),
                };
                assert!(fits, "{planted:?} {value}");
            }
        }
        let all = [
            "address",
            "api_key",
            "bank_account",
            "birth_date",
            "card",
            "code",
            "cookie",
            "cvv",
            "email",
            "iban",
            "name",
            "national_id",
            "passport",
            "password",
            "phone",
            "private_key",
            "sql_param",
            "token",
            "user_id",
        ];
        assert!(kinds.keys().copied().eq(all), "{kinds:?}");
    }

    #[test]
    fn dates() {
        for (days, date) in [(0, (1970, 1, 1)), (11_016, (2000, 2, 29)), (20_781, (2026, 11, 24)), (-1, (1969, 12, 31))] {
            assert_eq!(civil(days), date);
        }
    }

    #[test]
    fn check_digits_are_right() {
        let mut random = Random::new(9);
        for _ in 0..200 {
            let card: Vec<u32> = card(&mut random).bytes().rev().map(|digit| u32::from(digit - b'0')).collect();
            let luhn = card.iter().enumerate().map(|(at, d)| if at % 2 == 1 { d * 2 / 10 + d * 2 % 10 } else { *d }).sum::<u32>();
            assert_eq!(luhn % 10, 0, "{card:?}");
            let iban = iban(&mut random);
            let moved = format!("{}1314{}", &iban[4..], &iban[2..4]);
            let rest = moved.bytes().fold(0, |rest, digit| (rest * 10 + u32::from(digit - b'0')) % 97);
            assert_eq!(rest, 1, "{iban}");
        }
        // Computed by hand from the table of GB 11643.
        let id = national_id(&mut Random::new(1));
        let weights = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2, 1];
        let sum: u32 = id.bytes().zip(weights).map(|(c, w)| w * if c == b'X' { 10 } else { u32::from(c - b'0') }).sum();
        assert_eq!(sum % 11, 1, "{id}");
    }
}
