//! The built-in keys.
//!
//! Lower case, without separators. `~` in front: counts within a longer word, too. A longer phrase wins over its end:
//! `ip_address` is neutral although `address` is an address.

use super::{
    keys::Class::{self, Authorization, CookieHeader, Long, Neutral, PlainName, Soft, Thing, Value},
    kind::Kind,
};

/// Every phrase with its class.
pub(super) fn all() -> impl Iterator<Item = (&'static str, Class)> {
    TABLE.iter().flat_map(|(class, words)| words.split_whitespace().map(|word| (word, *class)))
}

const TABLE: &[(Class, &str)] = &[
    (
        Value(Kind::Password),
        "~password ~passwords ~passwd ~passphrase ~pwd pass userpass dbpass passwordhash passwordmd5 passwdmd5 passwordsalt passwordvalue \
         paypwd mima 密码 口令 密碼 sshpass pgpass",
    ),
    (
        Value(Kind::ApiKey),
        "~apikey ~secretkey ~secret ~accesskey ~accesskeyid ~accesskeysecret ~appsecret ~clientsecret ~privatekey ~secretaccesskey \
         appkey signkey signingkey encryptionkey aeskey encodingaeskey deskey masterkey licensekey accountkey \
         sharedaccesskey authkey webhookkey partnerkey mchkey apiv3key secretid secretvalue apitoken hmackey cryptkey cipherkey sessionkey \
         密钥 秘钥 私钥 签名密钥 secrets",
    ),
    (Long(Kind::ApiKey, 8), "credential credentials sign sig signature xsignature hmac 签名 amzsignature credentialscope"),
    (
        Value(Kind::Token),
        "~token ~accesstoken sessionid sessid jsessionid phpsessid sessiontoken tokenvalue samlresponse samlassertion clientassertion 令牌 oauthverifier",
    ),
    (Long(Kind::Token, 8), "jwt session sid csrf xsrf ticket assertion bearer"),
    (Authorization, "authorization proxyauthorization xauthorization"),
    (CookieHeader, "cookie cookies setcookie"),
    (
        Value(Kind::Code),
        "otp otpcode smscode verifycode verificationcode authcode oauthcode authorizationcode captcha captchacode onetimecode pinnumber \
         pincode pin totp 验证码 校验码 动态码 短信码 取件码 提货码 驗證碼",
    ),
    (
        Value(Kind::Cvv),
        "cvv cvv2 cvc cvc2 cvn securitycode cardsecuritycode cardverificationvalue cardexpiry cardexp expmonth expyear validthru \
         expirymonth expiryyear 安全码",
    ),
    (
        Value(Kind::Card),
        "card cardno cardnum cardnumber creditcard creditcardno creditcardnum creditcardnumber debitcard debitcardno bankcard bankcardno \
         bankcardnum bankcardnumber bankno pan ccnum ccnumber ccno primaryaccountnumber 卡号 银行卡 银行卡号 信用卡 信用卡号 储蓄卡 储蓄卡号",
    ),
    (Value(Kind::Iban), "iban ibannumber"),
    (
        Value(Kind::BankAccount),
        "bankaccount bankaccountno bankaccountnum bankaccountnumber accountno accountnum accountnumber acctno acctnum acctnumber \
         routingnumber 银行账号 银行账户 银行帐号 开户账号 收款账号 付款账号 对公账号",
    ),
    (
        Value(Kind::NationalId),
        "idcard idcardno idcardnum idcardnumber idnumber identityno identitycard identitynumber identitycardno certno certnumber \
         certificateno nationalid nationalidnumber ssn socialsecuritynumber socialsecurity cpf cnpj curp cuit cuil nif pannumber panno pancard tckimlik nric dni nie pesel tckn aadhaar \
         aadhar rrn pccc taxid taxpayerid sfz sfzh personalid customsid clearancecode driverlicense driverlicenseno driverslicense \
         driverslicenseno idno 身份证 身份证号 身份证号码 证件号 证件号码 个人通关码 驾驶证号 税号 社保号 社保卡号",
    ),
    (Long(Kind::NationalId, 12), "rfc"),
    (Value(Kind::SqlParam), "bindings sqlbindings"),
    (Value(Kind::Passport), "passport passportno passportnum passportnumber 护照 护照号 护照号码 通行证 通行证号 通行证号码 港澳通行证"),
    (
        Value(Kind::Phone),
        "~phone ~mobile ~telephone ~cellphone tel telno phoneno phonenum phonenumber phonenumbers phones mobiles mobileno mobilenum \
         mobilenumber mobilephone contactno contactnumber cell fax msisdn whatsapp 电话 电话号 电话号码 手机 手机号 手机号码 联系电话 \
         联系方式 座机 传真 固话 電話 手機",
    ),
    (Value(Kind::Email), "email emails emailaddress emailaddr mail 邮箱 邮件 电子邮箱 邮箱地址 郵箱 电子邮件"),
    (
        Value(Kind::Name),
        "buyername receivername recipientname consigneename contactname contactperson linkman customername fullname firstname lastname \
         middlename realname truename surname givenname familyname shippingname billingname shiptoname billtoname cardholder \
         cardholdername holdername payername payeename sendername guestname passengername legalname 姓名 收货人姓名 收件人姓名 买家姓名 \
         客户姓名 真实姓名 持卡人 持卡人姓名 会员姓名 用户姓名 收貨人",
    ),
    (Soft(Kind::Name), "consignee recipient receiver addressee buyer 收货人 收件人 寄件人 发件人 联系人 买家 下单人 membername ownername"),
    (PlainName, "name"),
    (
        Value(Kind::Username),
        "username userlogin loginname loginid useraccount nickname nick displayname screenname wechatid wechat qq 昵称 用户名 微信号 微信",
    ),
    (Value(Kind::UserId), "openid unionid"),
    (Value(Kind::DeviceId), "deviceid imei imsi idfa idfv gaid androidid oaid advertisingid"),
    (
        Value(Kind::Address),
        "address addr address1 addressline addressdetail detailaddress streetaddress street shipto shippingaddress billingaddress \
         receiveraddress homeaddress postaladdress deliveryaddress 地址 详细地址 收货地址 收件地址 住址 家庭住址 寄件地址 联系地址",
    ),
    (Value(Kind::BirthDate), "birthday birthdate dateofbirth dob 生日 出生日期 出生年月"),
    (Value(Kind::Geo), "lat lng lon latitude longitude 经度 纬度"),
    (
        Thing,
        "order orders orderid orderno ordernum ordernumber ordersn orderids id ids tradeno tradeid outtradeno waybill waybillno trackingno \
         trackingnumber tracking sku skuid spu spuid itemid productid goodsid traceid trace spanid requestid reqid msgid messageid mid batchno \
         batchid serialno serial sn seq sequence timestamp ts txid txn transactionid transaction paymentid payid shipmentid parcelid \
         barcode ean gtin upc refundid refundno invoiceno invoice offset lsn offsetid eventid jobid taskid version ver revision build nonce \
         订单 订单号 订单编号 运单号 运单 流水号 单号 快递单号 交易号 交易流水号 编号 批次号 商品编号 条码 退款单号",
    ),
    (
        Neutral,
        "ipaddress ipaddr macaddress macaddr remoteaddress remoteaddr localaddress localaddr bindaddress bindaddr listenaddress listenaddr \
         serveraddress serveraddr peeraddress peeraddr clientaddress clientaddr hostaddress sourceaddress destinationaddress memaddress \
         memoryaddress baseaddress virtualaddress physicaladdress webaddress urladdress ip地址 mac地址 请求地址 接口地址 服务地址 \
         服务器地址 回调地址 图片地址 链接地址 文件地址 下载地址 监听地址 绑定地址 访问地址 内存地址 网络地址 pagetoken nexttoken \
         nextpagetoken maxtoken unexpectedtoken userid uid memberid customerid buyerid accountid sellerid loginfail memoryaddr",
    ),
];
